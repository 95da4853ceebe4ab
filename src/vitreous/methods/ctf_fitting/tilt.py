"""How a sample is tilted, from the defocus of the tiles of its micrograph.

Elferich, Kong, Zottig and Grigorieff (2024) eLife 13, RP97227. A tile shows too little to be fitted by itself. Each is
scored against the rings of every defocus, and the plane of defocus over the micrograph that the tiles' scores together
favour is looked for. Then all tiles are brought to the defocus of the middle and averaged, so that rings that a tilt
blurs come back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.correlation import (
    Band,
    Correlator,
    Lens,
    flatten_band,
    lens_defocus,
    rings,
)
from vitreous.methods.ctf_fitting.equiphase import equivalent_k_squared
from vitreous.methods.ctf_fitting.fit import CtfFit, finish_fit, fit_ctf, nyquist_limit, usable_band
from vitreous.methods.ctf_fitting.search import Candidate, SearchSettings, evidence, merge_sectors, refine
from vitreous.methods.ctf_fitting.spectrum import PolarSpectrum, Spectrum, Tile, polar_spectrum

Array = NDArray[np.float64]
_SECTORS = 24
_STEP = 40.0  # A of defocus in a tile's table of scores
_STEEPEST = np.tan(np.deg2rad(70.0))
_SLOPES = np.tan(np.deg2rad(np.arange(0.0, 70.1, 5.0)))
_AXES = np.deg2rad(np.arange(0.0, 360.0, 15.0))
_MIN_GAIN = 10.0  # of log-likelihood over a flat sample (chosen: two flat simulated ones gained 0.7 and 2.2)


@dataclass(frozen=True)
class Tilt:
    """tilt: degrees, 0 to 90. axis: degrees from x; defocus increases towards axis + 90 degrees.

    evidence: log-likelihood gain over a flat sample. The sample is taken as flat (0, 0) where that is small.
    """

    tilt: float
    axis: float
    evidence: float


def fit_tilted_ctf(
    tiles: Iterable[Tile], microscope: Microscope, band: Band | None = None, settings: SearchSettings | None = None
) -> tuple[CtfFit, Tilt, Spectrum]:
    """The CTF in the middle of a micrograph, its tilt, and its mean spectrum.

    tiles: see `tile_spectra`. Raises SpectrumError as `fit_ctf` does.
    """
    settings = settings or SearchSettings()
    listed = list(tiles)
    spectrum = Spectrum(np.mean([tile.spectrum.power for tile in listed], axis=0), listed[0].spectrum.pixel_size)
    flat = fit_ctf(spectrum, microscope, band, settings)
    band = usable_band(spectrum, band or Band(30.0, 5.0))
    places = np.array([(tile.x, tile.y) for tile in listed])
    if len(listed) < 4 or not flat.has_rings:
        return flat, Tilt(0.0, 0.0, 0.0), spectrum
    polars = [merge_sectors(polar_spectrum(tile.spectrum), _SECTORS) for tile in listed]
    # Where a tilt blurs the rings, what is left of them is low: the envelope must not shut the tiles' rings out.
    start = Candidate(flat.lens, min(flat.b_factor, 100.0), 0.0)
    slope, middle, gain = _search_plane(polars, places, start, band, microscope)
    if gain < _MIN_GAIN:
        return flat, Tilt(0.0, 0.0, gain), spectrum
    lens = replace(flat.lens, defocus=flat.lens.defocus + middle)
    together = merge_tiles(polars, places @ slope, lens, microscope)
    correlate = Correlator(flatten_band(together, band), band)
    best = refine(Candidate(lens, start.b_factor, 0.0), correlate, microscope, settings)
    fit = finish_fit(spectrum, together, best, (band, Band(band.low, nyquist_limit(spectrum))), microscope, settings)
    axis = float(np.rad2deg(np.arctan2(slope[1], slope[0])) - 90.0)
    return fit, Tilt(float(np.rad2deg(np.arctan(np.hypot(*slope)))), (axis + 180.0) % 360.0 - 180.0, gain), spectrum


def _search_plane(
    polars: list[PolarSpectrum], places: Array, start: Candidate, band: Band, microscope: Microscope
) -> tuple[Array, float, float]:
    """(slope in x and y, change of the defocus in the middle in A, log-likelihood gain over a flat sample)."""
    reach = _STEEPEST * float(np.hypot(*places.T).max()) + 1000.0
    # Overfocus has rings of its own kind: a tile is not let go through focus.
    lowest = max(-reach, 500.0 - start.lens.defocus)
    offsets = np.arange(lowest, reach, _STEP)
    tables = np.stack([_scores(polar, offsets, start, band, microscope) for polar in polars])

    def total(slope: Array, middle: float) -> float:
        at = (places @ slope + middle - offsets[0]) / _STEP
        inside = np.clip(at, 0, len(offsets) - 1.001)
        low = inside.astype(np.int64)
        share = inside - low
        rows = np.arange(len(tables))
        # Half-overlapping tiles count each piece of the micrograph about four times.
        values = (1 - share) * tables[rows, low] + share * tables[rows, low + 1]
        return 0.25 * float(values.sum()) - 1e-3 * float(np.abs(at - inside).sum())

    middles = np.arange(-800.0, 801.0, 2 * _STEP)
    flat = max(total(np.zeros(2), float(middle)) for middle in middles)
    trials = [
        (total(slope * np.array([np.cos(axis), np.sin(axis)]), float(middle)), slope, axis, middle)
        for slope in _SLOPES
        for axis in (_AXES if slope else _AXES[:1])
        for middle in middles
    ]
    best = max(trials, key=lambda trial: trial[0])
    origin = np.array([best[1] * np.cos(best[2]), best[1] * np.sin(best[2]), best[3]])
    scale = np.array([0.05, 0.05, 50.0])

    def cost(step: Array) -> float:
        plane = origin + scale * step
        return -total(plane[:2], float(plane[2]))

    simplex = np.vstack([np.zeros(3), np.eye(3)])
    found = minimize(
        cost,
        np.zeros(3),
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 2e-3, "fatol": 1e-3, "maxiter": 400},
    )
    plane = origin + scale * found.x
    return plane[:2], float(plane[2]), -float(found.fun) - flat


def _scores(polar: PolarSpectrum, offsets: Array, start: Candidate, band: Band, microscope: Microscope) -> Array:
    """Log-likelihood gain of a tile for every change of its defocus (n_offsets,)."""
    points = flatten_band(polar, band)
    correlate = Correlator(points, band)
    lens = start.lens
    along = lens_defocus(lens, points.angle)
    envelope = np.exp(-0.25 * start.b_factor * points.k_squared)
    scores = np.empty(len(offsets))
    for first in range(0, len(offsets), 64):  # so that models stay in the cache
        some = along + offsets[first : first + 64, None]
        model = rings(points.k_squared, some, microscope, points.length, lens.phase, lens.thickness)
        scores[first : first + 64] = correlate(model * envelope)
    n = len(points.value)
    return np.array([evidence(float(score), n) for score in scores])


def merge_tiles(polars: list[PolarSpectrum], offsets: Array, lens: Lens, microscope: Microscope) -> PolarSpectrum:
    """The mean of tiles, each brought from its own defocus (lens.defocus + offset, A) to that of the lens.

    A ring of a tile at k lies, at the lens' defocus, at the k of the same phase (see equiphase).
    """
    shape = polars[0].power.shape
    n_sectors, n_shells = shape
    power, count, k_squared = (np.zeros(shape) for _ in range(3))
    length = polars[0].length
    sector = np.broadcast_to(np.arange(n_sectors)[:, None], shape)
    for polar, offset in zip(polars, offsets, strict=True):
        here = lens_defocus(lens, polar.angle)[:, None]
        turned = np.stack(
            [
                equivalent_k_squared(row, np.full_like(row, own + offset), float(own), microscope)
                for row, own in zip(polar.k_squared, here[:, 0], strict=True)
            ]
        )
        shell = np.sqrt(np.nan_to_num(turned, nan=np.inf)) * length + 0.5
        use = (polar.count > 0) & (shell < n_shells)
        index = (sector[use] * n_shells + shell[use].astype(np.int64)).ravel()
        weight = polar.count[use]
        for total, values in ((power, polar.power[use] * weight), (count, weight), (k_squared, turned[use] * weight)):
            total += np.bincount(index, values, minlength=shape[0] * shape[1]).reshape(shape)
    safe = np.maximum(count, 1e-9)
    # As many Fourier pixels as one spectrum has: tiles are averaged, not added.
    return replace(polars[0], power=power / safe, count=count / len(polars), k_squared=k_squared / safe)
