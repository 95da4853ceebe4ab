"""The local FSC spelled out: float64, every band on the whole grid."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.fourier import radius_grid
from vitreous.kernels.local_signal.bands import Band

# Where a band has less than this share of its largest local power (the faded corners of a map), nothing is known.
_EMPTY = 1e-6


def transform(density: Float[Tensor, "box box box"]) -> Complex[Tensor, "box box half"]:
    """Transform in float64, the origin wherever it is: all that follows is local, and comes back alike."""
    return torch.fft.rfftn(density.to(torch.float64))


def local_fsc(
    first: Complex[Tensor, "box box half"], second: Complex[Tensor, "box box half"], band: Band, box: int, reach: float
) -> Float[Tensor, "box box box"]:
    """See kernels.local_signal.local_fsc; of two transforms, in one band."""
    shape = (box,) * 3
    window = band.window(box).to(first.device)
    a, b = torch.fft.irfftn(first * window, s=shape), torch.fft.irfftn(second * window, s=shape)
    sigma = band.reach_px(box, reach)
    smooth = torch.exp(-2.0 * torch.pi**2 * sigma**2 * radius_grid(shape, device=first.device).square())
    cross = torch.fft.irfftn(torch.fft.rfftn(a * b) * smooth, s=shape)
    power = torch.fft.irfftn(torch.fft.rfftn(0.5 * (a * a + b * b)) * smooth, s=shape)
    return share(cross, power)


def share(cross: Float[Tensor, "*box"], power: Float[Tensor, "*box"]) -> Float[Tensor, "*box"]:
    """cross / power where there is power, else 0."""
    known = power > _EMPTY * power.max()
    return torch.where(known, cross / torch.where(known, power, 1.0), 0.0)


def add_damped(
    out: Complex[Tensor, "box box half"],
    map_ft: Complex[Tensor, "box box half"],
    band: Band,
    gain: Float[Tensor, "box box box"],
    box: int,
) -> None:
    """Add one band of a map, times the gain, to `out`."""
    out += torch.fft.rfftn(torch.fft.irfftn(map_ft * band.window(box).to(map_ft.device), s=(box,) * 3) * gain)
