"""Thickness from the nodes of simulated spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, phase_aberration
from vitreous.core.fourier import frequency_grid
from vitreous.methods.ctf_fitting.correlation import lens_defocus, rings
from vitreous.methods.ctf_fitting.fit import fit_ctf, lens_of
from vitreous.methods.ctf_fitting.search import SearchSettings
from vitreous.methods.ctf_fitting.spectrum import Spectrum, spectrum_of_micrograph

KRIOS, PIXEL = Microscope(300.0, 2.7, 0.07), 1.0


def micrograph(
    mean: float, thickness: float, size: int = 2048, *, astigmatism: float = 300.0, angle: float = 30.0
) -> np.ndarray:
    """Noise whose power has the rings of slices through a thickness, averaged one by one."""
    half = 0.5 * astigmatism
    ky, kx = frequency_grid((size, size), PIXEL)
    k2 = ky**2 + kx**2
    direction = torch.atan2(ky.expand_as(k2), kx.expand_as(k2))
    slices = ((torch.arange(32) + 0.5) / 32 - 0.5).double() * thickness
    ctf2 = torch.zeros_like(k2)
    for height in slices:
        lens = (mean + half + height, mean - half + height, angle, 0.0)
        at = [torch.tensor([value], dtype=torch.float64) for value in lens]
        ctf2 += torch.sin(phase_aberration(k2, direction, KRIOS, Defocus(*at))[0]) ** 2 / len(slices)
    power = 1 + ctf2 * torch.exp(-20.0 * k2) + 5 * torch.exp(-60 * k2.sqrt())
    white = np.random.default_rng(int(mean + thickness)).standard_normal((size, size))
    spectrum = torch.fft.rfft2(torch.from_numpy(white)) * power.sqrt()
    return torch.fft.irfft2(spectrum, s=(size, size)).float().numpy()


def test_the_average_over_slices_is_a_sinc() -> None:
    k2 = np.linspace(0.001, 0.1, 400)
    slices = (np.arange(1000) + 0.5) / 1000 - 0.5
    one_by_one = np.mean([rings(k2, np.full(400, 12000.0 + 900.0 * h), KRIOS, 1e9) for h in slices], axis=0)
    assert np.allclose(rings(k2, np.full(400, 12000.0), KRIOS, 1e9, 0.0, 900.0), one_by_one, atol=1e-5)


@pytest.mark.parametrize(("mean", "thickness"), [(9000.0, 700.0), (16000.0, 1000.0), (12000.0, 1500.0)])
def test_thickness_is_found_and_the_fit_goes_further(mean: float, thickness: float) -> None:
    spectrum = spectrum_of_micrograph(micrograph(mean, thickness), PIXEL)
    thin = fit_ctf(spectrum, KRIOS)
    thick = fit_ctf(spectrum, KRIOS, settings=SearchSettings(thickness_max=3000.0))
    assert thick.thickness == pytest.approx(thickness, rel=0.08)
    assert abs((thick.defocus_u + thick.defocus_v) / 2 - mean) < 60.0
    assert thick.resolution <= thin.resolution
    assert thick.evidence > thin.evidence + 10.0


@pytest.mark.parametrize("thickness", [0.0, 200.0])
def test_a_thin_sample_is_said_to_be_thin(thickness: float) -> None:
    spectrum = spectrum_of_micrograph(micrograph(11000.0, thickness, size=1024), PIXEL)
    fit = fit_ctf(spectrum, KRIOS, settings=SearchSettings(thickness_max=3000.0))
    assert fit.thickness == 0.0
    assert fit.defocus_u == fit_ctf(spectrum, KRIOS).defocus_u


@pytest.mark.parametrize("mean", [7500.0, 12000.0, 20000.0])
@pytest.mark.parametrize("thickness", [1000.0, 2000.0])
def test_without_noise_neither_background_nor_envelope_biases_the_fit(mean: float, thickness: float) -> None:
    box, pixel = 512, 1.4
    ky, kx = np.fft.fftfreq(box, pixel)[:, None], np.fft.rfftfreq(box, pixel)
    k2 = ky**2 + kx**2
    defocus = lens_defocus(lens_of(mean + 400.0, mean - 400.0, 30.0), np.arctan2(*np.broadcast_arrays(ky, kx)))
    ctf2 = 0.5 + 0.5 * rings(k2, defocus, KRIOS, box * pixel, 0.0, thickness)
    spectrum = Spectrum(1.0 + ctf2 * np.exp(-40.0 * k2) + 5.0 * np.exp(-60.0 * np.sqrt(k2)), pixel)
    fit = fit_ctf(spectrum, KRIOS, settings=SearchSettings(3000.0, thickness_max=3000.0))
    # The least standard deviations that noise allows on 2,048^2 pixels with a thickness of 1,000 A: bias is below it.
    assert fit.thickness == pytest.approx(thickness, abs=43.0)
    assert (fit.defocus_u + fit.defocus_v) / 2 == pytest.approx(mean, abs=8.5)
    assert fit.defocus_u - fit.defocus_v == pytest.approx(800.0, abs=24.0)
    assert fit.defocus_angle == pytest.approx(30.0, abs=0.2)


def test_astigmatism_of_thick_samples_to_2000_a() -> None:
    draws = [(9000.0, 350.0, -70.0), (14000.0, 700.0, 10.0), (19000.0, 1200.0, 85.0), (12000.0, 2000.0, -25.0)]
    errors = []
    for mean, astigmatism, angle in draws:
        image = micrograph(mean, 1000.0, astigmatism=astigmatism, angle=angle)
        settings = SearchSettings(3000.0, astigmatism_expected=2000.0, thickness_max=3000.0)
        fit = fit_ctf(spectrum_of_micrograph(image, PIXEL), KRIOS, settings=settings)
        turn = (fit.defocus_angle - angle + 90.0) % 180.0 - 90.0
        errors.append(((fit.defocus_u + fit.defocus_v) / 2 - mean, turn, fit.thickness - 1000.0))
    defocus, turned, thickness = np.sqrt(np.mean(np.square(errors), axis=0))
    assert defocus < 15.0
    assert turned < 2.0
    assert thickness < 60.0
