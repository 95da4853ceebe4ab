"""Thickness from the nodes of simulated spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, phase_aberration
from vitreous.core.fourier import frequency_grid
from vitreous.methods.ctf_fitting.correlation import rings
from vitreous.methods.ctf_fitting.fit import fit_ctf
from vitreous.methods.ctf_fitting.search import SearchSettings
from vitreous.methods.ctf_fitting.spectrum import spectrum_of_micrograph

KRIOS, PIXEL = Microscope(300.0, 2.7, 0.07), 1.0


def micrograph(mean: float, thickness: float, size: int = 2048) -> np.ndarray:
    """Noise whose power has the rings of slices through a thickness, averaged one by one."""
    ky, kx = frequency_grid((size, size), PIXEL)
    k2 = ky**2 + kx**2
    angle = torch.atan2(ky.expand_as(k2), kx.expand_as(k2))
    slices = ((torch.arange(32) + 0.5) / 32 - 0.5).double() * thickness
    ctf2 = torch.zeros_like(k2)
    for height in slices:
        at = [torch.tensor([v], dtype=torch.float64) for v in (mean + 150 + height, mean - 150 + height, 30.0, 0.0)]
        ctf2 += torch.sin(phase_aberration(k2, angle, KRIOS, Defocus(*at))[0]) ** 2 / len(slices)
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
