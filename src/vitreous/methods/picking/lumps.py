"""Lumps of a particle's size but denser: small ice, told from particles by what most places look like.

A blob filter answers to a lump of ice more than to a particle, so that lumps pass for the particles and particles for
noise. How strong a thing is does not say what it is: the same particle scores 9 alone and 3 in a crowd. So it is asked
whether most candidates are particles: on average, maxima of a Gaussian field look like two curves that its spectrum
foretells (Slepian 1963, Bell Syst. Tech. J. 42, 479; Adler and Taylor, Random Fields and Geometry); particles do not.
Where most are particles, what is twice as dense as they are is none.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from vitreous.core.fourier import radius_grid
from vitreous.core.neighbours import keep_best_apart
from vitreous.methods.picking.log_filter import log_response, log_transfer
from vitreous.methods.picking.peaks import local_maxima
from vitreous.methods.picking.robust import densest_part, mean_around

_CORE = 0.2  # diameters: width of the Gaussian by which the density of a place is judged
_DENSER = 2.0  # times a particle: what is a lump
_GROWTH = 0.1
_AROUND = 0.7  # diameters: width of the Gaussian over which the level beside a place is averaged
# Deviations of chi-square: noise and sparse simulated particles give -2 to 1.3, usual particles 4 to 145.
_LEAST_DEVIATION = 4.0
_FEWEST, _SAMPLES = 8, 600
_USUAL_SHARE = 0.4


def find_lumps(
    image: Float[np.ndarray, "height width"], clean: Bool[np.ndarray, "height width"], diameter_px: float
) -> Bool[np.ndarray, "height width"]:
    """Where there is something denser than twice a usual particle, grown by a tenth of a diameter.

    image: illumination taken off, particles bright. clean: what is not known to be contaminated already. Nothing is
    found where most candidates look like noise: what is strong and rare may be the particles.
    """
    nothing = np.zeros(image.shape, dtype=bool)
    middle, spread = densest_part(image[clean])
    # What stands out must not decide what the field looks like.
    tame = np.where(clean, np.clip(image, middle - 4.0 * spread, middle + 4.0 * spread), middle)
    usual = _usual_places(image, clean, diameter_px)
    if len(usual) < _FEWEST or unlike_noise(tame, clean, usual, diameter_px) < _LEAST_DEVIATION:
        return nothing
    core = ndimage.gaussian_filter(image, _CORE * diameter_px, mode="reflect")
    core -= _level_around(core, clean, diameter_px)
    density = float(np.median(core[tuple(usual.T)]))
    dense = clean & (core > _DENSER * density)
    if density <= 0.0 or not dense.any():
        return nothing
    return np.asarray(ndimage.distance_transform_edt(~dense) <= _GROWTH * diameter_px)


def _level_around(
    core: Float[np.ndarray, "height width"], clean: Bool[np.ndarray, "height width"], diameter_px: float
) -> Float[np.ndarray, "height width"]:
    """What clean places nearby agree on: ice is not of one thickness, nor every detector's gain known.

    Places that stand out over all are left out, lest a lump be measured against its neighbours.
    """
    middle, spread = densest_part(core[clean])
    trusted = clean & (core < middle + 2.0 * spread)
    return middle + mean_around(core - middle, trusted, _AROUND * diameter_px, prior=0.01)


def _usual_places(
    image: Float[np.ndarray, "height width"], clean: Bool[np.ndarray, "height width"], diameter_px: float
) -> Int[np.ndarray, "n 2"]:
    """Candidates (y, x) whose answers to a blob filter are those that most agree on."""
    answers = log_response(torch.from_numpy(np.where(clean, image, 0.0)), 1.0, diameter_px).numpy()
    peaks = local_maxima(answers, clean & (answers > 0.0))
    strengths = answers[tuple(peaks.T)]
    kept = keep_best_apart(peaks.astype(np.float64), strengths, 0.8 * diameter_px)
    peaks, strengths = peaks[kept], strengths[kept]
    if len(peaks) < _FEWEST / _USUAL_SHARE:
        return peaks[:0]
    middle, _ = densest_part(strengths, _USUAL_SHARE)
    nearest = np.argsort(np.abs(strengths - middle), kind="stable")[: int(_USUAL_SHARE * len(peaks))]
    return peaks[nearest]


def unlike_noise(
    image: Float[np.ndarray, "height width"],
    clean: Bool[np.ndarray, "height width"],
    places: Int[np.ndarray, "n 2"],
    diameter_px: float,
) -> float:
    """By how many deviations of chi-square the mean image around blobs differs from that around maxima of noise.

    Given height and curvature at a maximum of the blob filter's answer, a Gaussian field's mean is a sum of its
    covariance with that answer and of the covariance's Laplacian, whatever its spectrum. What is left after both are
    fitted is compared with what random places leave. 0 where fewer than 8 places are wholly inside.
    """
    half = round(diameter_px)
    height, width = image.shape
    inner = np.zeros(image.shape, dtype=bool)
    inner[half : height - half, half : width - half] = True
    places = places[inner[tuple(places.T)]]
    anywhere = np.argwhere(inner & clean)
    if len(places) < _FEWEST or not len(anywhere):
        return 0.0
    chosen = np.random.default_rng(0).integers(0, len(anywhere), _SAMPLES)
    random = _profiles(image, anywhere[chosen], half)
    variances, axes = np.linalg.eigh(np.cov(random.T))
    kept = variances > 1e-3 * variances[-1]
    whiten = axes[:, kept] / np.sqrt(variances[kept])
    mean = (_profiles(image, places, half).mean(0) - random.mean(0)) @ whiten
    foretold = _curves_of_noise(image, diameter_px, half) @ whiten
    left = mean - np.linalg.lstsq(foretold.T, mean, rcond=None)[0] @ foretold
    freedom = int(kept.sum()) - len(foretold)
    return float((len(places) * (left @ left) - freedom) / np.sqrt(2.0 * freedom)) if freedom > 0 else 0.0


def _curves_of_noise(
    image: Float[np.ndarray, "height width"], diameter_px: float, half: int
) -> Float[np.ndarray, "3 radii"]:
    """Covariance of the image with its blob filter's answer, that covariance's Laplacian, and a constant."""
    shape = (int(image.shape[0]), int(image.shape[1]))
    power = np.abs(np.fft.rfft2(image)) ** 2 * log_transfer(shape, 1.0, diameter_px).numpy()
    squared = radius_grid(shape, 1.0).numpy() ** 2
    curves = [np.fft.fftshift(np.fft.irfft2(power * factor, s=shape)) for factor in (1.0, squared)]
    centre = np.array([[shape[0] // 2, shape[1] // 2]])
    rows = [_profiles(curve, centre, half)[0] for curve in curves]
    return np.stack([*(row / np.abs(row).max() for row in rows), np.ones(half + 1)])


def _profiles(
    image: Float[np.ndarray, "height width"], places: Int[np.ndarray, "n 2"], half: int
) -> Float[np.ndarray, "n radii"]:
    """Rotational averages around places (y, x), one bin a pixel, out to half; all must lie inside by as much."""
    offset = np.arange(-half, half + 1)
    ring = np.floor(np.hypot(offset[:, None], offset) + 0.5).astype(np.int64)
    y, x = np.nonzero(ring <= half)
    ring = ring[y, x]
    order = np.argsort(ring, kind="stable")
    y, x, starts = y[order] - half, x[order] - half, np.searchsorted(ring[order], np.arange(half + 1))
    values = image[places[:, :1] + y, places[:, 1:] + x]
    return np.asarray(np.add.reduceat(values, starts, axis=1) / np.bincount(ring))
