"""Transforms of patches turned by the phases of a shift and added to a sum: one walk through memory.

Floor: every transform read once, the sum read and written once (written alone where it is begun anew).
"""

from __future__ import annotations

from jaxtyping import Complex
from torch import Tensor

from vitreous.kernels.add_turned import cpu, reference

__all__ = ["add_turned"]


def add_turned(
    total: Complex[Tensor, "p height half"],
    transforms: Complex[Tensor, "p height half"],
    row: Complex[Tensor, "height"],
    column: Complex[Tensor, "half"],
    *,
    anew: bool = False,
) -> None:
    """total += transforms * row[:, None] * column; anew: total is overwritten. Each patch of total is contiguous."""
    form = cpu if total.device.type == "cpu" else reference
    form.add_turned(total, transforms, row, column, anew)
