"""2D sums that go on from one mini-batch to the next: made wider, moved with their class, merged with new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.backproject import ImageAccumulator, empty_images
from vitreous.methods.refinement.mini_batches import blend


def merge(
    old: Sequence[ImageAccumulator], new: Sequence[ImageAccumulator], kept: Sequence[float]
) -> list[ImageAccumulator]:
    """For each class the share `kept` of its old sums and the whole of the new ones; all new where there are no old."""
    if not old:
        return list(new)
    merged = []
    for before, fresh, keep in zip(old, new, kept, strict=True):
        radius = max(before.max_radius, fresh.max_radius)
        merged.append(blend(widened(before, radius), widened(fresh, radius), keep, 1.0))
    return merged


def widened(sums: ImageAccumulator, radius: int) -> ImageAccumulator:
    """The same sums with room up to a larger radius."""
    if radius <= sums.max_radius:
        return sums
    out = empty_images(sums.data.shape[0], sums.box, sums.padding, radius, dtype=sums.weight.dtype)
    size, half = sums.data.shape[1:]
    first = out.centre - sums.centre
    out.data[:, first : first + size, :half] = sums.data
    out.weight[:, first : first + size, :half] = sums.weight
    return out


def shifted(sums: ImageAccumulator, shift: Float[Tensor, "2"]) -> ImageAccumulator:
    """The sums of the same images moved by shift (y, x) in pixels."""
    size, half = sums.data.shape[1:]
    ky = torch.arange(size, dtype=torch.float64) - sums.centre
    kx = torch.arange(half, dtype=torch.float64)
    y, x = shift.to(torch.float64) / (sums.box * sums.padding)
    angle = -2.0 * torch.pi * (ky[:, None] * y + kx * x)
    phases = torch.polar(torch.ones_like(angle), angle)
    return replace(sums, data=sums.data * phases.to(sums.data.dtype))


def shared_with_copies(
    sums: Sequence[ImageAccumulator], distribution: Float[Tensor, "k"], donor_of: Mapping[int, int]
) -> tuple[list[ImageAccumulator], Float[Tensor, "k"]]:
    """Each copy and its donor go on from half of the donor's sums and particles: neither starts ahead of the other."""
    out, share = list(sums), distribution.clone()
    for copy, donor in donor_of.items():
        out[copy] = out[donor] = replace(out[donor], data=0.5 * out[donor].data, weight=0.5 * out[donor].weight)
        share[copy] = share[donor] = share[donor] / 2
    return out, share
