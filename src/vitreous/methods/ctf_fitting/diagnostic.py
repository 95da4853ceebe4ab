"""The picture by which a microscopist judges a CTF fit: measured rings beside fitted ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.correlation import Band, lens_defocus, rings, smooth_trend
from vitreous.methods.ctf_fitting.fit import CtfFit, nyquist_limit
from vitreous.methods.ctf_fitting.spectrum import Spectrum, frequencies

_LOW = 50.0  # A, where the picture begins
_ARC = 3.0  # degrees over which the measured half is smoothed along its rings


def diagnostic_image(spectrum: Spectrum, fit: CtfFit, microscope: Microscope) -> Float[np.ndarray, "box box"]:
    """Centred power spectrum, flattened, x < 0 measured and x >= 0 the fitted CTF^2 out to the fit's resolution.

    Values are those of CTF^2, 0 at its zeros and 1 at its maxima: the measured half is scaled to the same.
    """
    band = Band(_LOW, nyquist_limit(spectrum))
    measured = measured_rings(spectrum, band, fit)
    # Friedel's law: the half at negative x is the transform at -k.
    left = np.fft.fftshift(measured, axes=0)[:, 1:]
    flipped = np.roll(left[::-1, ::-1], 1, axis=0)
    fitted = np.fft.fftshift(fitted_rings(spectrum, band, fit, microscope), axes=0)[:, :-1]
    return np.concatenate([flipped, fitted], axis=1).astype(np.float32)


def measured_rings(spectrum: Spectrum, band: Band, fit: CtfFit) -> Float[np.ndarray, "box half"]:
    """Flattened amplitudes in rfft layout, scaled by the strength of the fitted rings in each shell."""
    ky, kx = frequencies(spectrum)
    k = np.sqrt(ky * ky + kx * kx)
    inside = (k >= 1.0 / band.low) & (k <= 1.0 / band.high)
    amplitude = np.sqrt(spectrum.power[inside])
    flat = np.zeros_like(spectrum.power)
    flat[inside] = amplitude / smooth_trend(amplitude, np.ones_like(amplitude), k[inside], band) - 1.0
    strength = float(np.abs(fit.curve.model).max())
    return np.clip(0.5 + 0.5 * smooth_arcs(flat) / max(strength, 1e-6), -0.5, 1.5)


def smooth_arcs(half: Float[np.ndarray, "box half"]) -> Float[np.ndarray, "box half"]:
    """Average along short arcs (Gaussian of 3 degrees): the noise of single pixels goes, rings stay sharp."""
    box = half.shape[0]
    centred = np.fft.fftshift(half, axes=0)
    radii = np.arange(half.shape[1], dtype=np.float64)
    angles = np.linspace(-90.0, 90.0, 361)
    cosine, sine = np.cos(np.deg2rad(angles))[:, None], np.sin(np.deg2rad(angles))[:, None]
    polar = ndimage.map_coordinates(centred, [box // 2 + radii * sine, radii * cosine], order=1, mode="nearest")
    # By Friedel's law -90 and 90 degrees are one direction.
    smooth = ndimage.gaussian_filter1d(polar[:-1], _ARC / 0.5, axis=0, mode="wrap")
    y, x = np.mgrid[-(box // 2) : box - box // 2, : half.shape[1]]
    at_angle = (np.rad2deg(np.arctan2(y, x)) + 90.0) / 0.5
    back = ndimage.map_coordinates(np.vstack([smooth, smooth[:1]]), [at_angle, np.hypot(y, x)], order=1, cval=0.0)
    return np.fft.ifftshift(back, axes=0)


def fitted_rings(spectrum: Spectrum, band: Band, fit: CtfFit, microscope: Microscope) -> Float[np.ndarray, "box half"]:
    """CTF^2 in rfft layout, 0.5 where it was not fitted."""
    reach = replace(band, high=max(band.high, min(fit.resolution, band.low / 2.0)))
    ky, kx = frequencies(spectrum)
    k_squared = ky * ky + kx * kx
    inside = (k_squared >= reach.low**-2) & (k_squared <= reach.high**-2)
    out = np.full(k_squared.shape, 0.5)
    defocus = lens_defocus(fit.lens, np.arctan2(*np.broadcast_arrays(ky, kx))[inside])
    values = rings(k_squared[inside], defocus, microscope, spectrum.length, fit.lens.phase, fit.thickness)
    out[inside] = 0.5 + 0.5 * values
    return out
