"""Power spectra: white noise, geometry, equivalence of tiling and resampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.methods.ctf_fitting.correlation import lens_defocus, ring_phase
from vitreous.methods.ctf_fitting.equiphase import equivalent_k_squared, local_correlation
from vitreous.methods.ctf_fitting.fit import lens_of
from vitreous.methods.ctf_fitting.spectrum import (
    Spectrum,
    SpectrumError,
    polar_spectrum,
    spectrum_from_amplitudes,
    spectrum_of_frames,
    spectrum_of_micrograph,
    tile_starts,
)


def test_white_noise_has_unit_power() -> None:
    image = np.random.default_rng(1).standard_normal((900, 1100)).astype(np.float32)
    spectrum = spectrum_of_micrograph(image, 0.9, box=256)
    assert spectrum.power[2:-2, 2:].mean() == pytest.approx(1.0, rel=0.02)


def test_pixel_size_follows_the_crop() -> None:
    image = np.random.default_rng(1).standard_normal((1500, 1500)).astype(np.float32)
    fine = spectrum_of_micrograph(image, 0.7, box=256, target_pixel_size=1.4)
    assert fine.pixel_size == pytest.approx(1.4, rel=0.01)
    coarse = spectrum_of_micrograph(image, 2.0, box=256, target_pixel_size=1.4)
    assert coarse.pixel_size == 2.0


def test_wave_lands_on_its_frequency() -> None:
    y, x = np.mgrid[:1024, :1024]
    image = np.cos(2 * np.pi * (x * 0.11 - y * 0.05)).astype(np.float32)
    spectrum = spectrum_of_micrograph(image, 1.0, box=512, target_pixel_size=1.0)
    row, column = np.unravel_index(spectrum.power.argmax(), spectrum.power.shape)
    assert column / 512 == pytest.approx(0.11, abs=1.5 / 512)
    assert np.fft.fftfreq(512)[row] == pytest.approx(-0.05, abs=1.5 / 512)


def test_tiles_cover_the_image() -> None:
    starts = tile_starts(4096, 810)
    assert starts[0] == 0
    assert starts[-1] == 4096 - 810
    assert np.diff(starts).max() <= 405
    assert list(tile_starts(512, 512)) == [0]


def test_stored_spectrum_is_centred_amplitude() -> None:
    amplitudes = np.random.default_rng(0).random((64, 64))
    spectrum = spectrum_from_amplitudes(amplitudes, 2.0)
    assert spectrum.power[0, 0] == pytest.approx(amplitudes[32, 32] ** 2)
    assert spectrum.power[3, 5] == pytest.approx(amplitudes[35, 37] ** 2)


@pytest.mark.parametrize(
    ("amplitudes", "what"),
    [(np.ones((64, 32)), "square"), (np.full((64, 64), np.inf), "infinite"), (np.ones((64, 64)), "constant")],
)
def test_bad_stored_spectrum(amplitudes: np.ndarray, what: str) -> None:
    with pytest.raises(SpectrumError, match=what):
        spectrum_from_amplitudes(amplitudes, 1.0)


def test_polar_bins_keep_every_pixel_of_a_shell() -> None:
    power = np.ones((128, 65))
    polar = polar_spectrum(Spectrum(power, 1.5), n_sectors=36)
    assert (polar.power[polar.count > 0] == 1.0).all()
    # Half of the circumference 2 pi r, less the cross along the axes.
    assert polar.count.sum(0)[50] == pytest.approx(np.pi * 50 - 6, rel=0.05)


def test_ring_phase_agrees_with_the_core_ctf() -> None:
    """One formula for the phase in the suite: -cos(2 chi) must be 2 CTF^2 - 1."""
    microscope = Microscope(200.0, 1.4, 0.1)
    one = [torch.tensor([value], dtype=torch.float64) for value in (12000.0, 11000.0, 33.0, 20.0)]
    expected = ctf((64, 64), 1.5, microscope, Defocus(*one), dtype=torch.float64)[0].numpy()
    ky, kx = np.fft.fftfreq(64, 1.5)[:, None], np.fft.rfftfreq(64, 1.5)
    lens = lens_of(12000.0, 11000.0, 33.0, 20.0)
    angle = np.arctan2(*np.broadcast_arrays(ky, kx))
    k_squared = ky**2 + kx**2
    chi = ring_phase(k_squared, lens_defocus(lens, angle), microscope, lens.phase)
    np.testing.assert_allclose(-np.cos(2 * chi), 2 * expected**2 - 1, atol=1e-9)


def test_equivalent_frequency_has_the_same_phase() -> None:
    microscope = Microscope(300.0, 2.7, 0.07)
    k_squared = np.linspace(0.001, 0.1, 50)
    turned = equivalent_k_squared(k_squared, np.full(50, 12000.0), 11000.0, microscope)
    np.testing.assert_allclose(
        ring_phase(turned, np.full(50, 11000.0), microscope),
        ring_phase(k_squared, np.full(50, 12000.0), microscope),
        atol=1e-9,
    )


def test_local_correlation_of_equal_and_opposite_curves() -> None:
    phase = np.linspace(0, 40, 300)
    wave = np.cos(2 * phase)
    np.testing.assert_allclose(local_correlation(wave, wave, phase), 1.0, atol=1e-6)
    np.testing.assert_allclose(local_correlation(-wave, wave, phase), -1.0, atol=1e-6)


def test_spectrum_of_frames_sums_groups_and_averages_their_power() -> None:
    frames = np.random.default_rng(5).standard_normal((5, 256, 256)).astype(np.float32)
    single = spectrum_of_frames(frames, 2.0, average=1, box=128)
    assert np.allclose(single.power, np.mean([spectrum_of_micrograph(f, 2.0, box=128).power for f in frames], axis=0))
    pairs = spectrum_of_frames(frames, 2.0, average=2, box=128)
    sums = [frames[0] + frames[1], frames[2] + frames[3]]
    assert np.allclose(pairs.power, np.mean([spectrum_of_micrograph(f, 2.0, box=128).power for f in sums], axis=0))
    whole = spectrum_of_frames(frames, 2.0, average=9, box=128)
    assert np.allclose(whole.power, spectrum_of_micrograph(frames.sum(0, dtype=np.float64), 2.0, box=128).power)
    with pytest.raises(SpectrumError, match="no frames"):
        spectrum_of_frames([], 2.0)
