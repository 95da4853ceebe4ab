"""Central slices, spelled out: float64, one gather per corner of the interpolation cell."""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from vitreous.kernels.project.prepared import ProjectableImages, ProjectableVolume, in_plane_rotations, inside_radius


def interpolation_cells(
    points: Float[Tensor, "*batch d"], shape: tuple[int, ...]
) -> tuple[Int[Tensor, "*batch corners"], Float[Tensor, "*batch corners"]]:
    """Flat indices and weights of the 2^d grid points around each point (last axis first stored: x), x >= 0.

    points: (x, y[, z]) in oversampled Fourier pixels; shape: of the stored array, ([z,] y, x).
    """
    low = torch.floor(points)
    fraction = points - low
    index = low.to(torch.int64)
    index = torch.cat([index[..., :1], index[..., 1:] + shape[-2] // 2], -1)
    strides = torch.tensor([1, shape[-1], shape[-1] * shape[-2]][: points.shape[-1]], device=points.device)
    cells, weights = [], []
    for corner in product((0, 1), repeat=points.shape[-1]):
        step = torch.tensor(corner, device=points.device)
        cells.append(((index + step) * strides).sum(-1))
        weights.append(torch.where(step.bool(), fraction, 1.0 - fraction).prod(-1))
    return torch.stack(cells, -1), torch.stack(weights, -1)


def slice_points(
    rotations: Float[Tensor, "n d d"], coordinates: Float[Tensor, "m 2"], padding: int
) -> tuple[Float[Tensor, "n m d"], Tensor]:
    """Where a slice's points read the transform, folded to x >= 0, and which of them were folded (conjugate)."""
    image_xy = coordinates.flip(1)
    points = padding * torch.einsum("mi,nij->nmj", image_xy, rotations[:, :2])  # A^T (x, y, 0)
    folded = points[..., 0] < 0
    return torch.where(folded[..., None], -points, points), folded


def project(
    volume: ProjectableVolume, rotations: Float[Tensor, "n 3 3"], coordinates: Float[Tensor, "m 2"]
) -> Complex[Tensor, "n m"]:
    """See kernels.project.project; complex128."""
    coordinates = coordinates.to(torch.float64)
    points, folded = slice_points(rotations.to(torch.float64), coordinates, volume.padding)
    return _read(volume.data, points, folded, inside_radius(volume, coordinates))


def project_2d(
    images: ProjectableImages, angles: Float[Tensor, "n"], coordinates: Float[Tensor, "m 2"]
) -> Complex[Tensor, "k n m"]:
    """See kernels.project.project_2d; complex128."""
    coordinates = coordinates.to(torch.float64)
    points, folded = slice_points(in_plane_rotations(angles.to(torch.float64)), coordinates, images.padding)
    inside = inside_radius(images, coordinates)
    return torch.stack([_read(image, points, folded, inside) for image in images.data])


def _read(data: Tensor, points: Tensor, folded: Tensor, inside: Tensor) -> Tensor:
    points = torch.where(inside[:, None], points, torch.zeros_like(points))
    cells, weights = interpolation_cells(points, tuple(data.shape))
    values = (data.reshape(-1).to(torch.complex128)[cells] * weights).sum(-1)
    return torch.where(folded, values.conj(), values) * inside
