"""Particle images made ready for their transforms: scaled, moved by whole pixels, masked, the origin put first.

Each of these steps is nothing but a walk through memory; the fast form makes one walk of them. Floor: the image read
once and both results written once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.kernels.place import cpu, reference

__all__ = ["place"]


def place(
    images: Float[Tensor, "n box box"],
    scale: Float[Tensor, "n"],
    shifts: Int[Tensor, "n 2"],
    mask: Float[Tensor, "box box"],
    fill: Float[Tensor, "n box box"] | None = None,
) -> tuple[Float[Tensor, "n box box"], Float[Tensor, "n box box"]]:
    """The images times `scale`, moved periodically by (y, x) pixels: as they are, and inside the mask.

    Outside the mask (1 within, 0 without, its centre at box // 2) stands each image's own mean there, plus `fill`
    where it is given. Both results have their origin at [0, 0], as a transform expects it.
    """
    fast = images.device.type == "cpu" and images.dtype == torch.float32
    return (cpu if fast else reference).place(images, scale, shifts, mask, fill)
