"""A Fourier volume read at rotated grid points: float64 gathers (any device)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.kernels.project.reference import interpolation_cells


def turned(accumulator: VolumeAccumulator, rotation: Float[Tensor, "3 3"]) -> tuple[Tensor, Tensor]:
    """data and weight at S k for every grid point k within the accumulator's radius; 0 beyond."""
    data, weight = accumulator.data, accumulator.weight
    centre, limit = accumulator.centre, accumulator.padding * accumulator.max_radius
    size, half = data.shape[1], data.shape[2]
    axis = torch.arange(size, device=data.device, dtype=torch.float64) - centre
    z, y, x = torch.meshgrid(axis, axis, axis[centre : centre + half], indexing="ij")
    k = torch.stack([x, y, z], -1)
    inside = k.square().sum(-1) <= (limit + 1e-6) ** 2
    points = k[inside] @ rotation.to(data.device).T
    folded = points[:, 0] < 0
    cells, shares = interpolation_cells(torch.where(folded[:, None], -points, points), tuple(data.shape))
    values = (data.reshape(-1)[cells] * shares).sum(-1)
    out_data, out_weight = torch.zeros_like(data), torch.zeros_like(weight)
    out_data[inside] = torch.where(folded, values.conj(), values).to(data.dtype)
    out_weight[inside] = (weight.reshape(-1)[cells] * shares).sum(-1).to(weight.dtype)
    return out_data, out_weight
