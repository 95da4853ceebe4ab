"""Sharpening: detector MTF, FSC weighting, B factor from the Guinier plot, final low-pass.

Rosenthal and Henderson (2003) J. Mol. Biol. 333, 721.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import from_shells, lowpass, radius_grid, shell_mean, to_fourier, to_real
from vitreous.methods.maps.half_map_fsc import HalfMapFsc


@dataclass(frozen=True)
class Guinier:
    """ln(mean amplitude) per shell against 1/d^2 (1/A^2), -inf where a curve is empty.

    b_factor in A^2 (negative sharpens); slope and intercept of the fit, correlation of the fit, its range in A.
    fitted is False where the B factor was given or nothing could be fitted.
    """

    squared_frequency: Float[Tensor, "n_shells"]
    original: Float[Tensor, "n_shells"]
    weighted: Float[Tensor, "n_shells"]
    sharpened: Float[Tensor, "n_shells"]
    b_factor: float
    slope: float
    intercept: float
    correlation: float
    fit_range: tuple[float, float]
    fitted: bool


@dataclass(frozen=True)
class Mtf:
    """Detector MTF: values at frequencies in 1/pixel of the detector pixel (A)."""

    frequency: Float[Tensor, "n"]
    value: Float[Tensor, "n"]
    pixel_size: float

    def at(self, frequency: Float[Tensor, "*grid"]) -> Float[Tensor, "*grid"]:
        """MTF at spatial frequencies in 1/A, linear between the tabulated ones, held at the ends."""
        x = (frequency * self.pixel_size).contiguous()
        index = torch.searchsorted(self.frequency.contiguous(), x).clamp(1, self.frequency.numel() - 1)
        x0, x1 = self.frequency[index - 1], self.frequency[index]
        weight = ((x - x0) / (x1 - x0)).clamp(0.0, 1.0)
        return self.value[index - 1] * (1.0 - weight) + self.value[index] * weight


@dataclass(frozen=True)
class Sharpening:
    """What to do to the average of two half-maps.

    b_factor: A^2, None to fit it between fit_lowres and fit_highres (None: the FSC 0.143 resolution).
    fsc_weighting: by sqrt(2 FSC / (1 + FSC)). lowpass: final low-pass in A (None: the FSC 0.143 resolution).
    """

    b_factor: float | None = None
    fit_lowres: float = 10.0
    fit_highres: float | None = None
    fsc_weighting: bool = True
    lowpass: float | None = None
    filter_edge: float = 2.0
    mtf: Mtf | None = None


@dataclass(frozen=True)
class SharpenedMap:
    """The sharpened map, its Guinier plot and the low-pass (A) that was applied."""

    density: Float[Tensor, "box box box"]
    guinier: Guinier
    lowpass: float
    remarks: list[str] = field(default_factory=list)


def fsc_weight(curve: Float[Tensor, "n_shells"]) -> Float[Tensor, "n_shells"]:
    """sqrt(2 FSC / (1 + FSC)), the expected correlation of the full map with the truth; 0 where FSC <= 0."""
    positive = curve.clamp(min=0.0)
    return (2.0 * positive / (1.0 + positive)).sqrt()


def sharpen(
    half1: Float[Tensor, "box box box"],
    half2: Float[Tensor, "box box box"],
    curves: HalfMapFsc,
    how: Sharpening,
) -> SharpenedMap:
    """Average two half-maps and sharpen: MTF, FSC weight, B factor, low-pass, in that order."""
    shape = tuple(half1.shape)
    box, voxel_size = curves.box, curves.voxel_size
    remarks: list[str] = []
    map_ft = to_fourier(0.5 * (half1.to(torch.float64) + half2.to(torch.float64)), 3)
    frequency = radius_grid(shape, voxel_size, device=map_ft.device)
    original = _log_amplitude(map_ft, box)
    if how.mtf is not None:
        map_ft = map_ft / how.mtf.at(frequency).clamp(min=0.05)
    if how.fsc_weighting:
        map_ft = map_ft * from_shells(fsc_weight(curves.corrected), box, 3)
    weighted = _log_amplitude(map_ft, box)
    limit = how.lowpass if how.lowpass is not None else curves.resolution()
    guinier = _guinier(original, weighted, curves, how, remarks)
    map_ft = map_ft * torch.exp(-0.25 * guinier.b_factor * frequency**2)
    map_ft = map_ft * lowpass(shape, voxel_size, limit, edge=how.filter_edge, device=map_ft.device)
    return SharpenedMap(to_real(map_ft, shape, 3).to(torch.float32), guinier, limit, remarks)


def _log_amplitude(map_ft: Tensor, box: int) -> Float[Tensor, "n_shells"]:
    """ln of the mean amplitude per shell, with transforms scaled by 1/voxels as RELION's are."""
    return torch.log(shell_mean(map_ft.abs(), box, 3) / box**3)


def _guinier(original: Tensor, weighted: Tensor, curves: HalfMapFsc, how: Sharpening, remarks: list[str]) -> Guinier:
    shells = torch.arange(original.numel(), dtype=torch.float64)
    squared = (shells / (curves.box * curves.voxel_size)) ** 2
    high = how.fit_highres if how.fit_highres is not None else curves.resolution()
    low = how.fit_lowres
    if how.b_factor is not None:
        chosen, slope, intercept, correlation, fitted = how.b_factor, 0.0, 0.0, 0.0, False
    else:
        low = _widen_if_short(squared, weighted, low, high, remarks)
        slope, intercept, correlation = fit_line(squared, weighted, low, high)
        fitted = correlation != 0.0
        if not fitted:
            remarks.append(f"no B factor could be fitted between {low:.1f} and {high:.1f} A: none was applied")
        chosen = 4.0 * slope
    sharpened = weighted - 0.25 * chosen * squared
    return Guinier(squared, original, weighted, sharpened, chosen, slope, intercept, correlation, (low, high), fitted)


def _widen_if_short(squared: Tensor, values: Tensor, low: float, high: float, remarks: list[str]) -> float:
    """A line needs points: move the low end to 15, then 20 A where the range holds fewer than five shells."""
    for candidate in (low, 15.0, 20.0):
        if candidate >= low and _in_range(squared, values, candidate, high).sum() >= 5:
            if candidate != low:
                remarks.append(
                    f"the B factor was fitted from {candidate:.0f} A instead of {low:.0f} A: "
                    f"too few shells lie between {low:.0f} and {high:.1f} A"
                )
            return candidate
    return low


def _in_range(squared: Tensor, values: Tensor, low: float, high: float) -> Tensor:
    slack = 1e-9  # shells at the limits belong to the range
    return torch.isfinite(values) & (squared >= low**-2 - slack) & (squared <= high**-2 + slack)


def fit_line(
    squared_frequency: Float[Tensor, "n_shells"], values: Float[Tensor, "n_shells"], low: float, high: float
) -> tuple[float, float, float]:
    """Least-squares slope, intercept and correlation of ln amplitude against 1/d^2 for d in low .. high A.

    All zero where fewer than three shells can be used.
    """
    use = _in_range(squared_frequency, values, low, high)
    if use.sum() < 3:
        return 0.0, 0.0, 0.0
    x, y = squared_frequency[use], values[use]
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx * dy).sum() / dx.square().sum()
    correlation = (dx * dy).sum() / (dx.square().sum() * dy.square().sum()).sqrt().clamp(min=1e-300)
    return float(slope), float(y.mean() - slope * x.mean()), float(correlation.abs())
