"""Insertion of slices on a GPU: atomic additions, a batch of orientations at a time."""

from __future__ import annotations

from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.backproject import reference
from vitreous.kernels.backproject.accumulator import ImageAccumulator, VolumeAccumulator

_POINTS_AT_ONCE = 1 << 22  # about 1.5 GB of indices, shares and products


def backproject(
    into: VolumeAccumulator,
    slices: Complex[Tensor, "n m"],
    weights: Float[Tensor, "n m"],
    rotations: Float[Tensor, "n 3 3"],
    coordinates: Float[Tensor, "m 2"],
) -> None:
    """See kernels.backproject.backproject."""
    batch = max(1, _POINTS_AT_ONCE // max(1, len(coordinates)))
    for start in range(0, len(rotations), batch):
        part = slice(start, start + batch)
        reference.backproject(into, slices[part], weights[part], rotations[part], coordinates)


def backproject_2d(
    into: ImageAccumulator,
    slices: Complex[Tensor, "k n m"],
    weights: Float[Tensor, "k n m"],
    angles: Float[Tensor, "n"],
    coordinates: Float[Tensor, "m 2"],
) -> None:
    """See kernels.backproject.backproject_2d."""
    batch = max(1, _POINTS_AT_ONCE // max(1, len(coordinates)))
    for start in range(0, len(angles), batch):
        part = slice(start, start + batch)
        reference.backproject_2d(into, slices[:, part], weights[:, part], angles[part], coordinates)
