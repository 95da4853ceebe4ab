"""The sums written out: float64, one sample at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vitreous.kernels.compare.inputs import WhitenedImages
from vitreous.kernels.weighted_sums.inputs import WeightedSamples, WeightedSums


def sums(
    masked: WhitenedImages,
    unmasked: WhitenedImages,
    references: Tensor,
    phases: Tensor,
    samples: WeightedSamples,
    shell_starts: Tensor,
) -> WeightedSums:
    """See `weighted_sums`."""
    rows = np.unique(samples.rows)
    m = phases.shape[1]
    data = torch.zeros(len(rows), m, dtype=torch.complex128)
    power = torch.zeros(len(rows), m, dtype=torch.float64)
    by_coefficient = torch.zeros(masked.n_images, m, dtype=torch.float64)
    wide = torch.complex128
    for pair in range(samples.n_pairs):
        i, row = int(samples.images[pair]), int(samples.rows[pair])
        u = int(np.searchsorted(rows, row))
        p = references[row].to(wide)
        for entry in range(int(samples.starts[pair]), int(samples.starts[pair + 1])):
            w, phase = float(samples.weights[entry]), phases[int(samples.shifts[entry])].to(wide)
            data[u] += w * unmasked.data[i].to(wide) * phase
            power[u] += w * 2.0 * unmasked.half_power[i].to(torch.float64)
            cross = (p.conj() * masked.data[i].to(wide) * phase).real
            by_coefficient[i] += w * (cross - masked.half_power[i].to(torch.float64) * p.abs().square())
    gains = torch.stack([by_coefficient[:, a:b].sum(1) for a, b in pairwise(shell_starts)], 1)
    return WeightedSums(rows, data, power, gains)
