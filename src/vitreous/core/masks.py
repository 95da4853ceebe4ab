"""Soft circular and spherical masks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import Ndim


def distance_grid(
    box: int, ndim: Ndim = 2, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*box"]:
    """Distance in pixels of each voxel from the centre, index box//2."""
    axis = torch.arange(box, device=device, dtype=dtype) - box // 2
    total = torch.zeros((box,) * ndim, device=device, dtype=dtype)
    for dim in range(ndim):
        total = total + (axis * axis).reshape(-1, *([1] * (ndim - 1 - dim)))
    return total.sqrt()


def soft_sphere(
    box: int,
    radius: float,
    *,
    edge: float = 5.0,
    ndim: Ndim = 2,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*box"]:
    """1 within radius (pixels), falling to 0 at radius + edge along a raised cosine."""
    distance = distance_grid(box, ndim, device=device, dtype=dtype)
    ramp = ((distance - radius) / max(edge, 1e-6)).clamp(0.0, 1.0)
    return 0.5 + 0.5 * torch.cos(torch.pi * ramp)


def mask_images(
    images: Float[Tensor, "*batch box box"],
    mask: Float[Tensor, "box box"],
    fill: Float[Tensor, "*batch box box"] | None = None,
) -> Float[Tensor, "*batch box box"]:
    """Replace what is outside a mask (1 within, 0 without) by each image's own mean there, plus `fill` if given."""
    outside = 1.0 - mask
    level = (images * outside).sum((-2, -1), keepdim=True) / outside.sum().clamp(min=1e-6)
    return images * mask + (level if fill is None else level + fill) * outside
