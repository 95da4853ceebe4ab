"""Soft bands of Fourier shells: triangles that sum to one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import hermitian_weights, radius_grid


@dataclass(frozen=True)
class Band:
    """A triangle over Fourier radius (pixels): 0 at low, 1 at centre, 0 at high; the first is 1 down to radius 0."""

    low: float
    centre: float
    high: float

    def window(self, side: int) -> Float[Tensor, "side side half"]:
        """On the rfft grid of a cube, float64."""
        return self.at(radius_grid((side,) * 3) * side)

    def at(self, radius: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """At Fourier radii."""
        rise = (radius - self.low) / (self.centre - self.low) if self.centre > self.low else torch.ones_like(radius)
        fall = (self.high - radius) / (self.high - self.centre)
        return torch.minimum(rise, fall).clamp(0.0, 1.0)

    def reach_px(self, box: int, reach: float) -> float:
        """`reach` wavelengths of the centre in pixels of the box (at most the box)."""
        return min(reach * box / max(self.centre, 1.0), float(box))


def band_edges(max_shell: int, *, relative: float, least: float) -> list[float]:
    """Centres of bands from 0 to max_shell: `relative` of their radius apart, at least `least` pixels."""
    edges = [0.0]
    while edges[-1] < max_shell:
        edges.append(edges[-1] + max(least, relative * edges[-1]))
    scale = max_shell / edges[-1]
    return [edge * scale for edge in edges]


def bands(max_shell: int, *, relative: float = 0.25, least: float = 3.0) -> list[Band]:
    """Bands that sum to one from 0 to max_shell and fall to 0 one pixel beyond it."""
    centres = band_edges(max_shell, relative=relative, least=least)
    ends = [0.0, *centres, centres[-1] + 1.0]
    return [Band(*ends[i : i + 3]) for i in range(len(centres))]


@lru_cache(maxsize=256)
def chance_variance(band: Band, box: int, reach: float) -> float:
    """Variance of the local FSC of two independent white noises.

    The product of two fields with autocorrelation R has R^2; the window averages it: sum of R^2 (w * w), exactly.
    It depends on the band's shape in wavelengths alone, so a small box with the same proportions will do.
    """
    side = min(box, max(32, 4 * math.ceil(band.high)))
    power = band.window(side).square()
    autocorrelation = torch.fft.irfftn(power, s=(side,) * 3)
    autocorrelation = autocorrelation / autocorrelation[0, 0, 0]
    squared = torch.fft.rfftn(autocorrelation.square()).real
    # the window's width scales with the box, its transform in Fourier pixels does not
    sigma = band.reach_px(box, reach) / box
    radius = radius_grid((side,) * 3) * side
    window = torch.exp(-4.0 * torch.pi**2 * sigma**2 * radius.square())
    weights = hermitian_weights(side)
    return float((squared * window * weights).sum()) / side**3
