"""The comparison written out: float64, one sample at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from vitreous.kernels.compare.inputs import Samples, WhitenedImages


def dense(images: WhitenedImages, references: Tensor, phases: Tensor) -> Tensor:
    """See `compare_dense`."""
    out = torch.empty(images.n_images, references.shape[0], phases.shape[0], dtype=torch.float64)
    for i in range(images.n_images):
        for r in range(references.shape[0]):
            for t in range(phases.shape[0]):
                out[i, r, t] = _gain(images, i, references[r], phases[t])
    return out


def sparse(images: WhitenedImages, references: Tensor, phases: Tensor, samples: Samples) -> Tensor:
    """See `compare_sparse`."""
    n_orient, n_shift = samples.orientation_children, samples.shift_children
    out = torch.empty(samples.n_entries, n_orient, n_shift, dtype=torch.float64)
    for pair in range(samples.n_pairs):
        for entry in range(int(samples.starts[pair]), int(samples.starts[pair + 1])):
            for a in range(n_orient):
                for b in range(n_shift):
                    row = int(samples.rows[pair]) * n_orient + a
                    shift = int(samples.shifts[entry]) * n_shift + b
                    out[entry, a, b] = _gain(images, int(samples.images[pair]), references[row], phases[shift])
    return out


def _gain(images: WhitenedImages, image: int, reference: Tensor, phase: Tensor) -> Tensor:
    wide = torch.complex128
    data, p, shift = images.data[image].to(wide), reference.to(wide), phase.to(wide)
    cross = (p.conj() * data * shift).real.sum()
    return cross - (images.half_power[image].to(torch.float64) * p.abs().square()).sum()
