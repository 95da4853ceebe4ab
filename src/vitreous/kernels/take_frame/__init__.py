"""A movie frame taken in: gain applied, added to the sum of all, checked for what is no number, and binned.

Each of these is nothing but a walk through memory; the fast form makes one walk of them. Floor: the frame read and
written once, the sum read and written once.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.take_frame import cpu

__all__ = ["take_frame"]


def take_frame(
    raw: Float[Tensor, "height width"],
    gain: Float[Tensor, "height width"] | None,
    frame: Float[Tensor, "height width"],
    total: Float[Tensor, "height width"],
    binned: Float[Tensor, "h w"] | None = None,
    factor: int = 1,
) -> bool:
    """frame = raw times gain, total += frame; whether all of its values are numbers (by their sum, in float32).

    binned: is overwritten by sums of factor x factor pixels, what is left over at the far ends not looked at. All on
    the CPU, float32, contiguous.
    """
    return cpu.take_frame(raw, gain, frame, total, binned, factor)
