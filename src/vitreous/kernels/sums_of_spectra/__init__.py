"""Transforms of sums put together: weighted by curves over frequency and added up, or their power added up.

Walks through memory. Floor: every transform read once.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.sums_of_spectra import cpu, reference

__all__ = ["add_power", "weigh"]


def weigh(
    transforms: Sequence[Complex[Tensor, "height half"]],
    curves: Float[Tensor, "r m"],
    ky: Float[Tensor, "height"],
    kx: Float[Tensor, "half"],
) -> Complex[Tensor, "height half"]:
    """sum_r curves[r, |k|] transforms[r](k), |k| rounded to whole steps; the first transform is overwritten by it.

    ky, kx: frequencies in steps of the curves, no |k| beyond their last.
    """
    fast = transforms[0].device.type == "cpu"
    return (cpu if fast else reference).weigh(transforms, curves, ky, kx)


def add_power(
    power: Float[Tensor, "rows columns"], transform: Complex[Tensor, "height half"], rows: tuple[slice, slice]
) -> None:
    """power += |transform|^2 of two runs of rows, one after the other, and of the first columns."""
    fast = transform.device.type == "cpu"
    (cpu if fast else reference).add_power(power, transform, rows)
