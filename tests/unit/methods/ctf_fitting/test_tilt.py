"""Tilted samples: a specimen imaged piece by piece, each at the defocus it has there."""

from __future__ import annotations

import numpy as np
import pytest

from vitreous.core.microscope import Microscope
from vitreous.methods.ctf_fitting.correlation import Lens
from vitreous.methods.ctf_fitting.fit import fit_ctf
from vitreous.methods.ctf_fitting.spectrum import (
    PolarSpectrum,
    Spectrum,
    polar_spectrum,
    spectrum_of_micrograph,
    tile_spectra,
)
from vitreous.methods.ctf_fitting.tilt import fit_tilted_ctf, merge_tiles

KRIOS, PIXEL, SIZE, PATCH = Microscope(300.0, 2.7, 0.07), 1.4, 1536, 384


def tilted(defocus: float, tilt: float, axis: float, strength: float = 0.6) -> np.ndarray:
    """A micrograph of a plane that is `defocus` A out of focus in its middle, more towards axis + 90 degrees."""
    rng = np.random.default_rng(int(tilt + defocus))
    k = np.hypot(np.fft.fftfreq(PATCH, PIXEL)[:, None], np.fft.rfftfreq(PATCH, PIXEL))
    phase = -0.5 * np.pi * 2.7e7 * KRIOS.wavelength**3 * k**4 + np.arcsin(0.07)
    slope = np.tan(np.deg2rad(tilt)) * np.array([np.cos(np.deg2rad(axis + 90)), np.sin(np.deg2rad(axis + 90))])
    whole = SIZE + 2 * PATCH
    specimen = rng.standard_normal((whole, whole))
    image, norm = np.zeros((whole, whole)), np.zeros((whole, whole))
    hump = np.sin(np.pi * (np.arange(PATCH) + 0.5) / PATCH) ** 2
    window = np.outer(hump, hump)
    for y in range(0, whole - PATCH + 1, PATCH // 4):
        for x in range(0, whole - PATCH + 1, PATCH // 4):
            middle = (np.array([x, y]) + 0.5 * (PATCH - whole)) * PIXEL
            chi = np.pi * KRIOS.wavelength * (defocus + middle @ slope) * k**2 + phase
            here = (slice(y, y + PATCH), slice(x, x + PATCH))
            piece = np.fft.irfft2(np.fft.rfft2(specimen[here]) * np.sin(chi) * np.exp(-10 * k**2))
            image[here] += piece * window
            norm[here] += window
    inside = (slice(PATCH, -PATCH),) * 2
    noise = rng.standard_normal((SIZE, SIZE))
    return ((image / np.maximum(norm, 1e-9))[inside] * strength**0.5 + noise).astype(np.float32)


@pytest.mark.parametrize(("defocus", "tilt", "axis"), [(15000.0, 30.0, -70.0), (20000.0, 45.0, 120.0)])
def test_tilt_and_axis_are_found_and_rings_come_back(defocus: float, tilt: float, axis: float) -> None:
    image = tilted(defocus, tilt, axis)
    fit, found, spectrum = fit_tilted_ctf(tile_spectra(image, PIXEL), KRIOS)
    assert found.tilt == pytest.approx(tilt, abs=2.0)
    assert abs((found.axis - axis + 180.0) % 360.0 - 180.0) < 4.0
    assert abs((fit.defocus_u + fit.defocus_v) / 2 - defocus) < 40.0
    assert fit.resolution < 0.8 * fit_ctf(spectrum, KRIOS).resolution


def test_a_flat_sample_is_flat_and_fitted_as_ever() -> None:
    image = tilted(12000.0, 0.0, 0.0)
    fit, found, spectrum = fit_tilted_ctf(tile_spectra(image, PIXEL), KRIOS)
    assert found.tilt == 0.0
    plain = fit_ctf(spectrum_of_micrograph(image, PIXEL), KRIOS)
    assert fit.defocus_u == pytest.approx(plain.defocus_u, abs=1e-6)
    assert spectrum.pixel_size == PIXEL


def test_tiles_lie_where_they_are_said_to() -> None:
    image = np.random.default_rng(1).standard_normal((700, 900)).astype(np.float32)
    tiles = list(tile_spectra(image, 2.0, box=256))
    xs, ys = sorted({tile.x for tile in tiles}), sorted({tile.y for tile in tiles})
    assert xs[0] == -xs[-1] == pytest.approx(-(900 - 256) / 2 * 2.0)
    assert ys[0] == -ys[-1] == pytest.approx(-(700 - 256) / 2 * 2.0)
    assert np.allclose(
        np.mean([t.spectrum.power for t in tiles], axis=0), spectrum_of_micrograph(image, 2.0, box=256).power
    )


def test_merging_tiles_of_one_defocus_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    polars: list[PolarSpectrum] = [polar_spectrum(Spectrum(rng.gamma(9.0, 1.0, (128, 65)), 2.0), 24) for _ in range(3)]
    merged = merge_tiles(polars, np.zeros(3), Lens(12000.0), KRIOS)
    use = merged.count > 0
    assert np.allclose(merged.power[use], np.mean([p.power for p in polars], axis=0)[use])
    assert np.allclose(merged.k_squared[use], polars[0].k_squared[use])
