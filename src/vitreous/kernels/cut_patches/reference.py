"""Cutting patches, a step at a time; any device, any precision."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def cut_patches(image: Tensor, corners: Sequence[tuple[int, int]], window: tuple[Tensor, Tensor], out: Tensor) -> None:
    """See `vitreous.kernels.cut_patches.cut_patches`."""
    ny, nx = out.shape[1:]
    for patch, (y, x) in zip(out, corners, strict=True):
        patch.copy_(image.roll((-y, -x), (0, 1))[:ny, :nx])
    out -= out.mean(dim=(1, 2), keepdim=True)
    out *= window[0][:, None] * window[1]
