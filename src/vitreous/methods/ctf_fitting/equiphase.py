"""Equiphase average: the one-dimensional Thon rings of an astigmatic spectrum, and how far the fit follows them.

Along a curve of equal phase the rings of all directions coincide; averaged over it they stand out of the noise to
much higher resolution than in a radial average. Rohou and Grigorieff (2015); Zhang (2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.correlation import Band, Lens, flatten_band, lens_defocus, ring_phase, rings
from vitreous.methods.ctf_fitting.spectrum import PolarSpectrum

Array = NDArray[np.float64]
_THRESHOLD = 0.5
_MAX_CROWDING = 0.45  # share of the tile that the signal may be displaced: beyond, two samples a ring are not left


@dataclass(frozen=True)
class EquiphaseCurve:
    """Curves (n,) over k (1/A): data, the flattened amplitude; model, the fit (scaled to it); correlation, local."""

    k: Array
    data: Array
    model: Array
    correlation: Array


def equiphase_curve(polar: PolarSpectrum, lens: Lens, microscope: Microscope, band: Band) -> EquiphaseCurve:
    """Average the spectrum along curves of equal phase, one bin a Fourier pixel, from band.low to band.high."""
    points = flatten_band(polar, band)
    turned = equivalent_k_squared(points.k_squared, lens_defocus(lens, points.angle), lens.defocus, microscope)
    position = np.sqrt(turned) * points.length
    first, last = int(np.ceil(points.length / band.low)), int(points.length / band.high)
    bins = np.floor(position + 0.5)
    usable = np.isfinite(bins) & (bins >= first) & (bins <= last)
    index = bins[usable].astype(np.int64) - first
    size = last - first + 1
    count = np.bincount(index, weights=points.weight[usable], minlength=size)
    safe = np.maximum(count, 1e-9)
    data = np.bincount(index, weights=(points.weight * points.value)[usable], minlength=size) / safe
    k_squared = np.bincount(index, weights=(points.weight * np.nan_to_num(turned))[usable], minlength=size) / safe
    filled = count > 0
    k_squared, data = k_squared[filled], data[filled]
    defocus = np.full_like(k_squared, lens.defocus)
    model = rings(k_squared, defocus, microscope, points.length, lens.phase, lens.thickness)
    correlation = local_correlation(data, model, ring_phase(k_squared, defocus, microscope, lens.phase))
    return EquiphaseCurve(np.sqrt(k_squared), data, scale_to(model, data, correlation), correlation)


def equivalent_k_squared(k_squared: Array, defocus: Array, mean_defocus: float, microscope: Microscope) -> Array:
    """The k^2 at which mean_defocus has the phase that `defocus` has at k_squared; NaN past the phase's maximum."""
    curvature = 0.5 * microscope.cs * 1e7 * microscope.wavelength**2
    phase = defocus * k_squared - curvature * k_squared**2
    if curvature == 0.0:
        return phase / mean_defocus
    root = mean_defocus**2 - 4.0 * curvature * phase
    out = np.full_like(k_squared, np.nan)
    fine = (root >= 0.0) & (phase >= 0.0)
    out[fine] = 2.0 * phase[fine] / (mean_defocus + np.sqrt(root[fine]))
    return out


def local_correlation(data: Array, model: Array, phase: Array, *, min_half_width: int = 5) -> Array:
    """Correlation of data and model in a window of one ring to either side (at least min_half_width samples)."""
    low, high = ring_windows(phase, min_half_width=min_half_width)

    def window_sum(values: Array) -> Array:
        running = np.r_[0.0, np.cumsum(values)]
        return running[high] - running[low]

    size = (high - low).astype(np.float64)
    mean_d, mean_m = window_sum(data) / size, window_sum(model) / size
    cross = window_sum(data * model) / size - mean_d * mean_m
    var_d = window_sum(data * data) / size - mean_d**2
    var_m = window_sum(model * model) / size - mean_m**2
    return cross / np.sqrt(np.maximum(var_d * var_m, 1e-24))


def ring_windows(phase: Array, *, min_half_width: int = 5) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the window around each sample begins and ends (exclusive): one ring to either side, cut at the ends."""
    n = len(phase)
    index = np.arange(n)
    monotone = np.maximum.accumulate(phase)
    low = np.minimum(np.searchsorted(monotone, monotone - np.pi), index - min_half_width).clip(0)
    high = np.maximum(np.searchsorted(monotone, monotone + np.pi, side="right"), index + min_half_width + 1).clip(max=n)
    return low, high


def scale_to(model: Array, data: Array, correlation: Array) -> Array:
    """The model with the amplitude that the data have where they agree (one factor for the whole curve)."""
    trusted = correlation > _THRESHOLD
    if not trusted.any():
        return model * float(data.std() / max(model.std(), 1e-12))
    overlap, norm = float(data[trusted] @ model[trusted]), float(model[trusted] @ model[trusted])
    return model * (max(overlap, 0.0) / max(norm, 1e-12))


def fit_resolution(curve: EquiphaseCurve, lens: Lens, microscope: Microscope, length: float) -> float:
    """Resolution in A to which the local correlation stays above 0.5.

    It is read from the first zero of the CTF on (below it background decides) and must stay low for a whole window
    to count as lost, so that one noisy ring does not end it. Infinite where not one ring fits.
    """
    phase = ring_phase(curve.k**2, np.full_like(curve.k, lens.defocus), microscope, lens.phase)
    crowding = 2.0 * microscope.wavelength * lens.defocus * curve.k / length
    # A whole number of pi is a zero; the phase at the start of the band may be past the first already.
    start = int(np.searchsorted(np.maximum.accumulate(phase), np.pi * np.ceil(phase[0] / np.pi)))
    end = int(np.searchsorted(crowding, _MAX_CROWDING))
    good = curve.correlation > _THRESHOLD
    last = -1
    for index in range(min(start, end), end):
        if good[index]:
            last = index
        elif phase[index] - phase[max(last, start)] > np.pi and index - max(last, start) > 5:
            break
    return float(1.0 / curve.k[last]) if last >= 0 else float("inf")
