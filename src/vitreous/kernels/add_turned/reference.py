"""Turning and adding, a step at a time; any device, any precision."""

from __future__ import annotations

from torch import Tensor


def add_turned(total: Tensor, transforms: Tensor, row: Tensor, column: Tensor, anew: bool) -> None:
    """See `vitreous.kernels.add_turned.add_turned`."""
    if anew:
        total.zero_()
    total.addcmul_(transforms, row[:, None] * column)
