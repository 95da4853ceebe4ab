"""Patches cut out of a periodic image, their mean taken off, under a window: one walk through memory.

Floor: every pixel of a patch read and written once; the mean asks for one more look at it, in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.cut_patches import cpu, reference

__all__ = ["cut_patches"]


def cut_patches(
    image: Float[Tensor, "height width"],
    corners: Sequence[tuple[int, int]],
    window: tuple[Float[Tensor, "ny"], Float[Tensor, "nx"]],
    out: Float[Tensor, "p ny nx"],
) -> None:
    """out[p] = (image from corner (y, x) on, periodic, less its mean there) times the window's rows and columns."""
    (cpu if image.device.type == "cpu" else reference).cut_patches(image, corners, window, out)
