"""All steps in one walk through each image: numba, images shared out among threads."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from vitreous.kernels.threads import in_threads


def place(
    images: Tensor, scale: Tensor, shifts: Tensor, mask: Tensor, fill: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `vitreous.kernels.place.place`; images in float32."""
    moved, inside = torch.empty_like(images), torch.empty_like(images)
    first = torch.fft.ifftshift(mask).contiguous().to(torch.float32)
    share = (1.0 - first) / (1.0 - first).sum().clamp(min=1e-6)
    added = images.new_zeros(1, 1, 1) if fill is None else torch.fft.ifftshift(fill, dim=(-2, -1)).contiguous()

    def work(part: slice) -> None:
        _place(
            images[part].contiguous().numpy(),
            scale[part].to(torch.float32).numpy(),
            shifts[part].to(torch.int64).numpy(),
            first.numpy(),
            share.numpy(),
            (added if fill is None else added[part]).numpy(),
            (moved[part].numpy(), inside[part].numpy()),
        )

    in_threads(work, len(images))
    return moved, inside


@numba.njit(cache=True, nogil=True, fastmath=True)
def _place(images, scale, shifts, mask, share, fill, out):  # type: ignore[no-untyped-def]
    n, box, _ = images.shape
    moved, inside = out
    filled = fill.shape[1] == box
    for i in range(n):
        down, right = (box // 2 - shifts[i, 0]) % box, (box // 2 - shifts[i, 1]) % box
        outside = 0.0
        for y in range(box):
            source, target = images[i, (y + down) % box], moved[i, y]
            _scaled(source[right:], scale[i], target[: box - right])
            _scaled(source[:right], scale[i], target[box - right :])
            outside += _product_sum(target, share[y])
        for y in range(box):
            _blend(moved[i, y], np.float32(outside), mask[y], inside[i, y])
            if filled:
                _add_outside(fill[i, y], mask[y], inside[i, y])


@numba.njit(cache=True, fastmath=True)
def _scaled(source, scale, target):  # type: ignore[no-untyped-def]
    for x in range(target.shape[0]):
        target[x] = scale * source[x]


@numba.njit(cache=True, fastmath=True)
def _product_sum(values, share):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for x in range(values.shape[0]):
        total += values[x] * share[x]
    return total


@numba.njit(cache=True, fastmath=True)
def _blend(values, level, mask, target):  # type: ignore[no-untyped-def]
    for x in range(target.shape[0]):
        target[x] = level + (values[x] - level) * mask[x]


@numba.njit(cache=True, fastmath=True)
def _add_outside(fill, mask, target):  # type: ignore[no-untyped-def]
    for x in range(target.shape[0]):
        target[x] += fill[x] * (np.float32(1.0) - mask[x])
