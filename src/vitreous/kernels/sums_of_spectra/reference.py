"""Sums of spectra as their definitions read; any device, any precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK = 64  # rows of the transform at a time: what is held beside it stays small


def weigh(transforms: Sequence[Tensor], curves: Tensor, ky: Tensor, kx: Tensor) -> Tensor:
    """See `vitreous.kernels.sums_of_spectra.weigh`."""
    total, device = transforms[0], transforms[0].device
    curves = curves.to(device)
    for start in range(0, len(total), _BLOCK):
        rows = slice(start, start + _BLOCK)
        step = (torch.sqrt(ky[rows, None] ** 2 + kx**2) + 0.5).to(device=device, dtype=torch.int32)
        total[rows] *= curves[0][step]
        for curve, transform in zip(curves[1:], transforms[1:], strict=True):
            total[rows].addcmul_(transform[rows], curve[step])
    return total


def add_power(power: Tensor, transform: Tensor, rows: tuple[slice, slice]) -> None:
    """See `vitreous.kernels.sums_of_spectra.add_power`."""
    columns = power.shape[1]
    power += torch.cat([torch.view_as_real(transform[run, :columns]).square().sum(-1) for run in rows])
