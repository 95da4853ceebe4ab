"""The ice ring of spectra that have one of known strength, and of real micrographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitreous.io.mrc import read_image
from vitreous.methods.ctf_fitting.ice import ice_ring
from vitreous.methods.ctf_fitting.spectrum import (
    Spectrum,
    frequencies,
    spectrum_from_amplitudes,
    spectrum_of_micrograph,
)


def spectrum(ring: float, pixel_size: float = 1.4, box: int = 512) -> Spectrum:
    """Power that falls off steeply, times 1 + ring between 0.25 and 0.28 1/A."""
    empty = Spectrum(np.zeros((box, box // 2 + 1)), pixel_size)
    k = np.hypot(*frequencies(empty))
    noise = np.random.default_rng(1).gamma(50.0, 1 / 50.0, k.shape)  # fifty tiles
    return Spectrum(np.exp(-12 * k) * (1 + ring * ((k > 0.25) & (k < 0.28))) * noise, pixel_size)


@pytest.mark.parametrize("ring", [0.0, 0.1, 0.5, 3.0])
def test_a_ring_of_known_strength(ring: float) -> None:
    assert ice_ring(spectrum(ring)) == pytest.approx(ring, abs=0.02 * (1 + ring))


def test_thon_rings_are_no_ice() -> None:
    plain = spectrum(0.0)
    k = np.hypot(*frequencies(plain))
    thon = Spectrum(plain.power * (1 + 0.3 * np.exp(-40 * k**2) * np.cos(2 * np.pi * 0.02 * 12000 * k**2)), 1.4)
    assert abs(ice_ring(thon)) < 0.03


def test_nan_where_pixels_are_too_coarse() -> None:
    assert np.isnan(ice_ring(spectrum(0.5, pixel_size=1.8)))
    assert np.isfinite(ice_ring(spectrum(0.5, pixel_size=1.5)))


def test_an_icy_micrograph_stands_out_of_a_vitreous_one() -> None:
    rng = np.random.default_rng(4)
    size, pixel_size = 1024, 1.2
    k = np.hypot(np.fft.fftfreq(size, pixel_size)[:, None], np.fft.rfftfreq(size, pixel_size))
    white = np.fft.rfft2(rng.standard_normal((size, size)))
    for height, low, high in ((0.0, -0.05, 0.05), (1.0, 0.3, 1.0)):
        ring = np.sqrt(1 + height * np.exp(-0.5 * ((k - 1 / 3.67) / 0.008) ** 2))
        image = np.fft.irfft2(white * ring * np.exp(-4 * k)).astype(np.float32)
        assert low < ice_ring(spectrum_of_micrograph(image, pixel_size)) < high


@pytest.mark.data
def test_real_spectra_are_of_vitreous_ice(data_dir: Path) -> None:
    for path in sorted(data_dir.glob("betagal_empiar10204/MotionCorr/job002/Movies/*_PS.mrc")):
        assert abs(ice_ring(spectrum_from_amplitudes(*read_image(path)))) < 0.1
