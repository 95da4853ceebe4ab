"""Whole-frame alignment: each frame against the sum of the others.

Zheng et al. (2017) Nat. Methods 14, 331; Grant and Grigorieff (2015) eLife 4, e06980. A search of correlation
maps at low resolution brings every frame near its place; a fit to all frames together then finds it to a
hundredth of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.fourier import crop_fourier
from vitreous.methods.motion.spectra import Band, band_limit, band_of, inverse_real, phases
from vitreous.methods.motion.trajectories import Fit, Parameters, Prior, Problem, fit

# Cross-spectra are weighted by exp(-sharpness B k^2): strongly low-passed for the search, less for the fit.
SEARCH_SHARPNESS = 2.0
FIT_SHARPNESS = 0.5
# The search looks at frequencies that weigh more than this, and finds a fraction of their wavelength.
_SEARCHED = 0.05
# Standard deviations of a correlation map that noise does not reach in ten thousand independent places.
_CLEAR_PEAK = 6.0


@dataclass(frozen=True)
class GlobalOptions:
    """b_factor: px^2. iterations: of the fit at most. tolerance: px. largest_shift: fraction of the field."""

    b_factor: float = 150.0
    iterations: int = 10
    tolerance: float = 0.01
    largest_shift: float = 0.25
    prior: Prior = field(default_factory=Prior)


def align_frames(frames_ft: Complex[Tensor, "f height half"], band: Band, options: GlobalOptions) -> Fit:
    """Displacement of each of n frames (transforms cropped to `band`) relative to the first, in movie pixels."""
    n_frames = frames_ft.shape[0]
    coarse = band_of(band.shape, band_limit(options.b_factor, SEARCH_SHARPNESS))
    coarse_ft = crop_fourier(frames_ft, band.cropped, coarse.cropped)
    coarsest = band_of(band.shape, band_limit(options.b_factor, SEARCH_SHARPNESS, _SEARCHED))
    coarsest_ft = crop_fourier(coarse_ft, coarse.cropped, coarsest.cropped)
    parameters = Parameters(_search(coarsest_ft, coarsest, options), torch.zeros(0, 2, dtype=torch.float64))
    none = torch.zeros(1, n_frames, 0, dtype=torch.float64)
    most, tolerance = options.iterations, options.tolerance
    # Most of the way at low resolution, where there are a quarter of the coefficients.
    problem = Problem(coarse_ft[None], coarse.weights(options.b_factor, SEARCH_SHARPNESS), coarse, none)
    parameters = fit(problem, parameters, options.prior, iterations=most, tolerance=5 * tolerance).parameters
    problem = Problem(frames_ft[None], band.weights(options.b_factor, FIT_SHARPNESS), band, none)
    return fit(problem, parameters, options.prior, iterations=most, tolerance=5 * tolerance)


def _search(
    frames_ft: Complex[Tensor, "f height half"], band: Band, options: GlobalOptions, rounds: int = 4
) -> Float[Tensor, "f 2"]:
    """Displacements to a fraction of a pixel of strongly low-passed correlation maps, a few rounds.

    A frame whose peak does not stand out of its map is put between its neighbours: noise must not throw it away.
    """
    device = frames_ft.device
    weights = band.weights(options.b_factor, SEARCH_SHARPNESS).to(device)
    allowed = _allowed(band, options.largest_shift).to(device)
    scale = torch.tensor([s / c for s, c in zip(band.shape, band.cropped, strict=True)], dtype=torch.float64).flip(0)
    found = torch.zeros(frames_ft.shape[0], 2, dtype=torch.float64)
    for _ in range(rounds):
        aligned = frames_ft.clone()
        for ft, displacement in zip(aligned, found, strict=True):
            row, column = phases(band, displacement, device)
            ft.mul_(row).mul_(column)
        total = aligned.sum(0)
        new, clear = found.clone(), np.zeros(len(found), dtype=bool)
        for f, ft in enumerate(aligned):
            correlation = inverse_real((total - ft).conj_physical_().mul_(ft).mul_(weights), band.cropped)
            peak, clear[f] = _peak(correlation, allowed)
            new[f] += peak * scale
        if not clear.any():
            return found
        numbers = np.arange(len(found))
        for axis in range(2):
            new[:, axis] = torch.from_numpy(np.interp(numbers, numbers[clear], new[clear, axis].numpy()))
        moved = new - found
        found = new - new[0]
        if float((moved - moved.mean(0)).abs().max()) < 2.0 * float(scale.max()):
            break
    return found


def _peak(correlation: Float[Tensor, "height width"], allowed: Tensor) -> tuple[Float[Tensor, "2"], bool]:
    """Highest allowed place (x, y) of a correlation map, in its pixels, and whether it stands out of the noise."""
    height, width = correlation.shape
    y, x = divmod(int(correlation.masked_fill(~allowed, -torch.inf).argmax()), width)
    top = float(correlation[y, x])
    vertical = _vertex(float(correlation[y - 1, x]), top, float(correlation[(y + 1) % height, x]))
    horizontal = _vertex(float(correlation[y, x - 1]), top, float(correlation[y, (x + 1) % width]))
    place = [_signed(x, width) + horizontal, _signed(y, height) + vertical]
    return torch.tensor(place, dtype=torch.float64), top > _CLEAR_PEAK * float(correlation.square().mean().sqrt())


def _vertex(before: float, at: float, after: float) -> float:
    """Where the parabola through three neighbouring values is highest, from the middle one."""
    curvature = before - 2.0 * at + after
    return float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0


def _signed(index: int, size: int) -> int:
    return index if index < size - index else index - size


def _allowed(band: Band, largest: float) -> Tensor:
    """True within the largest shift of a correlation map (origin at index 0)."""
    inside = []
    for size in band.cropped:
        distance = torch.fft.fftfreq(size).abs()
        inside.append(distance <= largest)
    return inside[0][:, None] & inside[1][None, :]
