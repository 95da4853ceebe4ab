"""Insertion of slices, spelled out: float64, the transpose of the gather in kernels.project.reference."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.backproject.accumulator import ImageAccumulator, VolumeAccumulator
from vitreous.kernels.project.prepared import in_plane_rotations, inside_radius
from vitreous.kernels.project.reference import interpolation_cells, slice_points


def backproject(
    into: VolumeAccumulator,
    slices: Complex[Tensor, "n m"],
    weights: Float[Tensor, "n m"],
    rotations: Float[Tensor, "n 3 3"],
    coordinates: Float[Tensor, "m 2"],
) -> None:
    """See kernels.backproject.backproject."""
    _scatter(into.data, into.weight, slices, weights, rotations, coordinates, into)


def backproject_2d(
    into: ImageAccumulator,
    slices: Complex[Tensor, "k n m"],
    weights: Float[Tensor, "k n m"],
    angles: Float[Tensor, "n"],
    coordinates: Float[Tensor, "m 2"],
) -> None:
    """See kernels.backproject.backproject_2d."""
    rotations = in_plane_rotations(angles.to(torch.float64))
    for k in range(len(into.data)):
        _scatter(into.data[k], into.weight[k], slices[k], weights[k], rotations, coordinates, into)


def _scatter(
    data: Tensor,
    weight: Tensor,
    slices: Tensor,
    weights: Tensor,
    rotations: Tensor,
    coordinates: Tensor,
    into: VolumeAccumulator | ImageAccumulator,
) -> None:
    device = data.device
    real = torch.float32 if data.dtype == torch.complex64 else torch.float64
    coordinates = coordinates.to(device, torch.float64)
    inside = inside_radius(into, coordinates)
    points, folded = slice_points(rotations.to(device, torch.float64), coordinates[inside], into.padding)
    cells, shares = interpolation_cells(points, tuple(data.shape))
    values = slices.to(device)[:, inside]
    values = torch.where(folded, values.conj(), values)
    flat = cells.reshape(-1)
    spread = (values[..., None] * shares).to(data.dtype).reshape(-1)
    data.view(-1).index_add_(0, flat, spread)
    weight.view(-1).index_add_(0, flat, (weights.to(device)[:, inside, None] * shares).to(real).reshape(-1))
