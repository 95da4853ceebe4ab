"""Normalised cross-correlation of a spectrum with the Thon rings of a CTF, blind to a smooth background.

What is fitted is the amplitude divided by a smooth radial curve, less one: the noise of an averaged periodogram is
proportional to its power, so every frequency then has the same noise. Any background that is left (splines in k)
is projected out of data and model alike, so no choice of background can pull the defocus one way.
Rohou and Grigorieff (2015) J. Struct. Biol. 192, 216; Zhang (2016) J. Struct. Biol. 193, 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.spectrum import PolarSpectrum

Array = NDArray[np.float64]
_KNOT_SPACING = 0.04  # 1/A: wider than the rings it must not follow


@dataclass(frozen=True)
class Band:
    """The frequencies used, as resolutions in A: from low (30) to high (5)."""

    low: float
    high: float


@dataclass(frozen=True)
class Points:
    """Flattened amplitudes at n points of the Fourier plane.

    value: amplitude over background, less one. weight: Fourier pixels a point stands for. k_squared (1/A^2),
    angle (rad). length: side in A of the tiles behind the spectrum.
    """

    value: Array
    weight: Array
    k_squared: Array
    angle: Array
    length: float


@dataclass(frozen=True)
class Lens:
    """Parameters of a CTF as the search moves them: no axis to be undefined where there is no astigmatism.

    defocus: mean (A); dz(angle) = defocus + cosine cos(2 angle) + sine sin(2 angle); phase: radians, phase plate.
    thickness: A, of the sample, whose middle is at `defocus` (0: thin).
    """

    defocus: float
    cosine: float = 0.0
    sine: float = 0.0
    phase: float = 0.0
    thickness: float = 0.0


def flatten_band(polar: PolarSpectrum, band: Band) -> Points:
    """The bins of a polar spectrum within a band, amplitudes divided by their smooth radial trend."""
    inside = (polar.k_squared >= band.low**-2) & (polar.k_squared <= band.high**-2) & (polar.count > 0)
    amplitude = np.sqrt(polar.power[inside])
    k_squared = polar.k_squared[inside]
    weight = polar.count[inside]
    angle = np.broadcast_to(polar.angle[:, None], polar.power.shape)[inside]
    trend = smooth_trend(amplitude, weight, np.sqrt(k_squared), band)
    return Points(amplitude / trend - 1.0, weight, k_squared, angle, polar.length)


def smooth_trend(amplitude: Array, weight: Array, k: Array, band: Band) -> Array:
    """exp of the weighted spline through log amplitude (positive, and even-handed over decades)."""
    basis = spline_basis(k, band)
    root = np.sqrt(weight)
    logs = np.log(np.maximum(amplitude, 1e-30))
    coefficients = np.linalg.lstsq(basis * root[:, None], logs * root, rcond=None)[0]
    return np.exp(basis @ coefficients)


def spline_basis(k: Array, band: Band) -> Array:
    """Cubic B-splines over the band, values (n, n_basis) at frequencies k (1/A)."""
    start, end = 1.0 / band.low, 1.0 / band.high
    intervals = max(2, round((end - start) / _KNOT_SPACING))
    inner = np.linspace(start, end, intervals + 1)
    knots = np.r_[[start] * 3, inner, [end] * 3]
    return BSpline.design_matrix(np.clip(k, start, end), knots, 3).toarray()


class Correlator:
    """Correlates models with one set of points, both after projection onto what a smooth background cannot be."""

    def __init__(self, points: Points, band: Band) -> None:
        self.points = points
        basis = spline_basis(np.sqrt(points.k_squared), band)
        # Columns of `smooth` are orthonormal under the weights (up to the shells that the points do not reach).
        q, r = np.linalg.qr(basis * np.sqrt(points.weight)[:, None])
        keep = np.abs(np.diag(r)) > 1e-8 * np.abs(r).max()
        self._smooth = q[:, keep] * np.sqrt(points.weight)[:, None]
        data = points.weight * points.value - self._smooth @ (self._smooth.T @ points.value)
        self._data = data
        self._norm = max(float(data @ points.value), 1e-300) ** 0.5

    def __call__(self, model: Array) -> Array:
        """Signed correlation of models (..., n); negative where rings are out by half."""
        overlap = model @ self._data
        projected = model @ self._smooth
        norm = (model * model) @ self.points.weight - (projected * projected).sum(-1)
        return overlap / (self._norm * np.sqrt(np.maximum(norm, 1e-300)))


def ring_phase(k_squared: Array, defocus: Array, microscope: Microscope, phase: Array | float = 0.0) -> Array:
    """chi + asin(Q0) + phase shift, radians, defocus in A."""
    lam = microscope.wavelength
    spherical = 0.5 * np.pi * microscope.cs * 1e7 * lam**3 * k_squared * k_squared
    return np.pi * lam * defocus * k_squared - spherical + (phase + np.arcsin(microscope.amplitude_contrast))


def rings(
    k_squared: Array,
    defocus: Array,
    microscope: Microscope,
    length: float,
    phase: Array | float = 0.0,
    thickness: Array | float = 0.0,
) -> Array:
    """What a CTF adds to a spectrum made of tiles `length` A wide: -cos(2 chi), fading where rings crowd.

    A sample of some thickness (A) is its slices' CTF^2 averaged: the rings are damped by sinc(lambda t k^2), vanish at
    its nodes and come back turned over. McMullan et al. (2015) Ultramicroscopy 158, 26; Elferich et al. (2024) eLife
    13, RP97227.

    The rings of a defocus are the signal delocalised over chi'(k)/pi; a tile holds only the share 1 - that/length of
    it, so rings too fine for the spectrum are flat rather than aliased into broad false ones.
    """
    lam = microscope.wavelength
    k = np.sqrt(k_squared)
    displacement = np.abs(2.0 * lam * defocus * k - 2.0 * microscope.cs * 1e7 * lam**3 * k * k_squared)
    contrast = np.maximum(0.0, 1.0 - displacement / length)
    nodes = np.sinc(lam * thickness * k_squared)  # numpy's sinc(x) is sin(pi x) / (pi x)
    return -contrast * nodes * np.cos(2.0 * ring_phase(k_squared, defocus, microscope, phase))


def lens_defocus(lens: Lens, angle: Array) -> Array:
    """Defocus in A along directions angle (rad)."""
    return lens.defocus + lens.cosine * np.cos(2.0 * angle) + lens.sine * np.sin(2.0 * angle)


def lens_rings(lens: Lens, points: Points, microscope: Microscope, b_factor: float) -> Array:
    """The model at the points, damped by exp(-B k^2/4)."""
    defocus = lens_defocus(lens, points.angle)
    values = rings(points.k_squared, defocus, microscope, points.length, lens.phase, lens.thickness)
    return values * np.exp(-0.25 * b_factor * points.k_squared)
