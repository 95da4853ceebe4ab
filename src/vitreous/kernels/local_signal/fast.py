"""The local FSC on the smallest grid that holds a band: float32.

A product of two fields of a band has detail up to twice its frequency, of which the window keeps what is slow: a grid
four times the band's highest frequency has room for both, and the bands of low frequency, which are most, cost little.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from scipy import fft as scipy_fft
from torch import Tensor

from vitreous.core.fourier import crop_fourier, radius_grid
from vitreous.kernels.local_signal.bands import Band
from vitreous.kernels.local_signal.reference import share

_ROOM = 4.0
_SMALLEST = 16


def transform(density: Float[Tensor, "box box box"]) -> Complex[Tensor, "box box half"]:
    """Transform in float32, the origin wherever it is."""
    return torch.fft.rfftn(density)


def side_of(band: Band, box: int) -> int:
    """Side of the grid for a band: even, quick to transform, at most the box."""
    wanted = max(_SMALLEST, math.ceil(_ROOM * min(band.high, box / 2)))
    side = scipy_fft.next_fast_len(wanted, real=True)
    while side % 2:
        side = scipy_fft.next_fast_len(side + 1, real=True)
    return min(side, box)


def local_fsc(
    first: Complex[Tensor, "box box half"], second: Complex[Tensor, "box box half"], band: Band, box: int, reach: float
) -> Float[Tensor, "side side side"]:
    """See kernels.local_signal.local_fsc; of two transforms, in one band."""
    side = side_of(band, box)
    window = band.window(side).to(first.device, torch.float32)
    a, b = (_inverse(_crop(one, box, side) * window, side) for one in (first, second))
    sigma = band.reach_px(box, reach) / box
    radius = radius_grid((side,) * 3, device=first.device, dtype=torch.float32) * side
    smooth = torch.exp(-2.0 * torch.pi**2 * sigma**2 * radius.square())
    cross = _inverse(torch.fft.rfftn(a * b) * smooth, side)
    power = _inverse(torch.fft.rfftn(a.square_().add_(b.square_()).mul_(0.5)) * smooth, side)
    return share(cross, power)


def add_damped(
    out: Complex[Tensor, "box box half"],
    map_ft: Complex[Tensor, "box box half"],
    band: Band,
    gain: Float[Tensor, "side side side"],
    box: int,
) -> None:
    """Add one band of a map, times the gain, to `out`."""
    side = gain.shape[-1]
    window = band.window(side).to(map_ft.device, torch.float32)
    damped = torch.fft.rfftn(_inverse(_crop(map_ft, box, side) * window, side) * gain)
    out += crop_fourier(damped, (side,) * 3, (box,) * 3) if side < box else damped


def _crop(map_ft: Tensor, box: int, side: int) -> Tensor:
    return crop_fourier(map_ft, (box,) * 3, (side,) * 3) if side < box else map_ft


def _inverse(map_ft: Tensor, side: int) -> Tensor:
    return torch.fft.irfftn(map_ft, s=(side,) * 3)
