"""The one-dimensional profiles of a fit that are plotted and written out: rings, fit, and their agreement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.correlation import Band, flatten_band, ring_phase
from vitreous.methods.ctf_fitting.equiphase import ring_windows
from vitreous.methods.ctf_fitting.fit import CtfFit, nyquist_limit
from vitreous.methods.ctf_fitting.spectrum import Spectrum, polar_spectrum

Array = NDArray[np.float64]
_FEW_SAMPLES = 0.25  # rings a Fourier pixel: fewer than four samples to a ring


@dataclass(frozen=True)
class Profile:
    """Curves (n,) over frequency (1/A), from zero to the Nyquist frequency in steps of a Fourier pixel.

    radial: the plain rotational average. equiphase: the average along curves of equal phase. Both flattened and
    scaled as CTF^2 is (0 at its zeros, 1 at its maxima), 0 where nothing was fitted. model: |CTF|. correlation: of
    equiphase average and fit, around each frequency. noise: two standard deviations of that correlation in noise.
    """

    frequency: Array
    radial: Array
    equiphase: Array
    model: Array
    correlation: Array
    noise: Array


def profile_of(spectrum: Spectrum, fit: CtfFit, microscope: Microscope, lowest: float = 30.0) -> Profile:
    """The profiles of a spectrum and its fit; lowest: resolution (A) where the band begins."""
    frequency = np.arange(spectrum.box // 2 + 1) / spectrum.length
    k_squared = frequency**2
    mean = np.full_like(frequency, fit.lens.defocus)
    phase = ring_phase(k_squared, mean, microscope, fit.lens.phase)
    curve = fit.curve
    low, high = ring_windows(
        ring_phase(curve.k**2, np.full_like(curve.k, fit.lens.defocus), microscope, fit.lens.phase)
    )
    strength = max(float(np.abs(curve.model).max()), 1e-6)

    def on_grid(k: Array, values: Array) -> Array:
        return np.interp(frequency, k, values, left=0.0, right=0.0)

    points = flatten_band(polar_spectrum(spectrum), Band(lowest, nyquist_limit(spectrum)))
    shell = np.rint(np.sqrt(points.k_squared) * spectrum.length).astype(np.int64)
    count = np.bincount(shell, points.weight)
    filled = np.flatnonzero(count > 0)
    radial = np.bincount(shell, points.weight * points.value)[filled] / count[filled]
    return Profile(
        frequency,
        on_grid(filled / spectrum.length, 0.5 + 0.5 * radial / strength),
        on_grid(curve.k, 0.5 + 0.5 * curve.data / strength),
        np.abs(np.sin(phase)),
        on_grid(curve.k, curve.correlation),
        on_grid(curve.k, 2.0 / np.sqrt((high - low).astype(np.float64))),
    )


def aliasing_limit(spectrum: Spectrum, fit: CtfFit, microscope: Microscope) -> float:
    """Resolution in A beyond which rings have fewer than four Fourier pixels each; the Nyquist limit if none has."""
    k = np.arange(1, spectrum.box // 2 + 1) / spectrum.length
    lam = microscope.wavelength
    slope = np.abs(2.0 * lam * fit.lens.defocus * k - 2.0 * microscope.cs * 1e7 * lam**3 * k**3)
    crowded = np.flatnonzero(slope / spectrum.length > _FEW_SAMPLES)
    return float(1.0 / k[crowded[0]]) if len(crowded) else 2.0 * spectrum.pixel_size
