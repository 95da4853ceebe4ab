"""Every step over the whole volume at once, on any device and in any precision."""

from __future__ import annotations

import torch
from torch import Tensor

from vitreous.core.padded_fourier import wrap
from vitreous.kernels.backproject import VolumeAccumulator

# Points midway between two shells belong to the outer one, whatever the last bit of their radius.
TIE = 1e-6


def shells_of(sums: VolumeAccumulator) -> Tensor:
    """Shell (of the unpadded box) of each grid point; box//2 + 1 for all that lie beyond the radius or Nyquist."""
    size, half = sums.data.shape[1], sums.data.shape[2]
    axis = (torch.arange(size, device=sums.data.device, dtype=torch.float32) - size // 2).square()
    squares = axis[:, None, None] + axis[:, None] + axis[size // 2 : size // 2 + half]
    shells = torch.floor(squares.sqrt() / sums.padding + 0.5 + TIE).to(torch.int64)
    return torch.where(shells <= min(sums.max_radius, sums.box // 2), shells, sums.box // 2 + 1)


def shell_totals(sums: VolumeAccumulator) -> tuple[Tensor, Tensor]:
    """See `vitreous.kernels.shells.shell_totals`."""
    n, half = sums.box // 2 + 1, sums.data.shape[2]
    multiplicity = torch.full((half,), 2.0, dtype=torch.float64, device=sums.weight.device)
    multiplicity[0] = 1.0
    every = multiplicity.expand(sums.weight.shape).reshape(-1)
    flat = shells_of(sums).reshape(-1)
    total = torch.bincount(flat, sums.weight.reshape(-1).to(torch.float64) * every, minlength=n + 1)
    return total[:n], torch.bincount(flat, every, minlength=n + 1)[:n]


def divide(sums: VolumeAccumulator, prior: Tensor, floor: Tensor, used: Tensor) -> Tensor:
    """See `vitreous.kernels.shells.divide`."""
    shells, padded = shells_of(sums), sums.box * sums.padding
    prior, floor = (_with_beyond(curve.to(sums.weight.dtype), 1.0)[shells] for curve in (prior, floor))
    known = _with_beyond(used, False)[shells] & (sums.weight > 0)
    quotient = torch.where(known, sums.data / torch.maximum(sums.weight + prior, floor), 0.0)
    return wrap(wrap(quotient, 0, padded), 1, padded)[:, :, : padded // 2 + 1]


def _with_beyond(curve: Tensor, value: float) -> Tensor:
    """A value more, for the points beyond all shells."""
    return torch.cat([curve, torch.full((1,), value, dtype=curve.dtype, device=curve.device)])
