"""The steps one after the other, on any device and in any precision."""

from __future__ import annotations

import torch
from torch import Tensor

from vitreous.core.masks import mask_images


def place(
    images: Tensor, scale: Tensor, shifts: Tensor, mask: Tensor, fill: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `vitreous.kernels.place.place`."""
    moved = shift_whole_pixels(images * scale[:, None, None], shifts)
    inside = mask_images(moved, mask, fill)
    return torch.fft.ifftshift(moved, dim=(-2, -1)), torch.fft.ifftshift(inside, dim=(-2, -1))


def shift_whole_pixels(images: Tensor, shifts: Tensor) -> Tensor:
    """Move images periodically by whole pixels (y, x)."""
    n, box = images.shape[0], images.shape[-1]
    axis = torch.arange(box, device=images.device)
    y = (axis - shifts[:, 0, None]) % box
    x = (axis - shifts[:, 1, None]) % box
    return images[torch.arange(n, device=images.device)[:, None, None], y[:, :, None], x[:, None, :]]
