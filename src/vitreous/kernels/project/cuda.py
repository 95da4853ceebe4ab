"""Central slices on a GPU: eight gathers a batch of orientations, float32."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.project.prepared import ProjectableImages, ProjectableVolume, in_plane_rotations, inside_radius
from vitreous.kernels.project.reference import interpolation_cells, slice_points

_POINTS_AT_ONCE = 1 << 23  # about 1.5 GB of indices, weights and gathered values


def project(
    volume: ProjectableVolume,
    rotations: Float[Tensor, "n 3 3"],
    coordinates: Float[Tensor, "m 2"],
    out: Complex[Tensor, "n m"],
) -> Complex[Tensor, "n m"]:
    """See kernels.project.project; complex64 on the volume's device."""
    _gather(volume.data[None], rotations, coordinates, volume, out[None])
    return out


def project_2d(
    images: ProjectableImages, angles: Float[Tensor, "n"], coordinates: Float[Tensor, "m 2"]
) -> Complex[Tensor, "k n m"]:
    """See kernels.project.project_2d; complex64 on the images' device."""
    shape = len(images.data), len(angles), len(coordinates)
    out = torch.empty(shape, dtype=torch.complex64, device=images.data.device)
    _gather(images.data, in_plane_rotations(angles.to(torch.float64)), coordinates, images, out)
    return out


def _gather(
    data: Tensor,
    rotations: Tensor,
    coordinates: Tensor,
    prepared: ProjectableVolume | ProjectableImages,
    out: Tensor,
) -> None:
    device = data.device
    coordinates = coordinates.to(device, torch.float32)
    rotations = rotations.to(device, torch.float32)
    inside = inside_radius(prepared, coordinates)
    inner = torch.where(inside[:, None], coordinates, torch.zeros_like(coordinates))
    batch = max(1, _POINTS_AT_ONCE // max(1, len(coordinates)))
    for start in range(0, len(rotations), batch):
        points, folded = slice_points(rotations[start : start + batch], inner, prepared.padding)
        cells, weights = interpolation_cells(points, tuple(data.shape[1:]))
        for k, reference in enumerate(data):
            flat = reference.reshape(-1).to(torch.complex64)
            values = torch.zeros_like(points[..., 0], dtype=torch.complex64)
            for corner in range(cells.shape[-1]):
                values += flat[cells[..., corner]] * weights[..., corner]
            out[k, start : start + batch] = torch.where(folded, values.conj(), values) * inside
