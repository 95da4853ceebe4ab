"""The sums as torch products, for GPUs (runs on any device)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitreous.kernels.compare.inputs import WhitenedImages
from vitreous.kernels.weighted_sums.inputs import WeightedSamples, WeightedSums

_CHUNK = 1 << 24  # elements of a temporary


def sums(
    masked: WhitenedImages,
    unmasked: WhitenedImages,
    references: Tensor,
    phases: Tensor,
    samples: WeightedSamples,
    shell_starts: Tensor,
) -> WeightedSums:
    """See `weighted_sums`."""
    device = masked.data.device
    n_shifts, m = phases.shape
    unique, index = np.unique(samples.rows, return_inverse=True)
    images, rows, target = (torch.from_numpy(v).to(device) for v in (samples.images, samples.rows, index))
    entry_pairs = torch.from_numpy(np.repeat(np.arange(samples.n_pairs), np.diff(samples.starts))).to(device)
    shifts, weights = torch.from_numpy(samples.shifts).to(device), torch.from_numpy(samples.weights).to(device)
    data = torch.zeros(len(unique), m, dtype=torch.complex64, device=device)
    power = torch.zeros(len(unique), m, dtype=torch.float32, device=device)
    by_coefficient = torch.zeros(masked.n_images, m, dtype=torch.float64, device=device)
    step = max(1, _CHUNK // max(m, n_shifts))
    for start in range(0, samples.n_pairs, step):
        stop = min(start + step, samples.n_pairs)
        first, last = int(samples.starts[start]), int(samples.starts[stop])
        table = torch.zeros(stop - start, n_shifts, dtype=torch.float32, device=device)
        table.index_put_((entry_pairs[first:last] - start, shifts[first:last]), weights[first:last], accumulate=True)
        total = table.sum(1, keepdim=True)
        mixed = torch.complex(table @ phases.real, table @ phases.imag)  # (pairs, m)
        i = images[start:stop]
        data.index_add_(0, target[start:stop], unmasked.data[i] * mixed)
        power.index_add_(0, target[start:stop], 2.0 * total * unmasked.half_power[i])
        p = references[rows[start:stop]]
        gain = (p.conj() * masked.data[i] * mixed).real - total * masked.half_power[i] * p.abs().square()
        by_coefficient.index_add_(0, i, gain.to(torch.float64))
    shells = torch.repeat_interleave(torch.arange(len(shell_starts) - 1), shell_starts.diff()).to(device)
    gains = torch.zeros(masked.n_images, len(shell_starts) - 1, dtype=torch.float64, device=device)
    gains.index_add_(1, shells, by_coefficient)
    return WeightedSums(unique, data, power, gains)
