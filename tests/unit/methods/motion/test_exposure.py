from __future__ import annotations

import pytest
import torch

from vitreous.core.dose import dose_weights
from vitreous.core.fourier import radius_grid
from vitreous.methods.motion.exposure import Exposure, combine, exposure_basis


@pytest.mark.parametrize(("n_frames", "dose", "pixel_size"), [(1, 2.0, 1.0), (24, 1.0, 1.0), (40, 1.3, 0.6)])
def test_a_few_curves_make_all_weights(n_frames, dose, pixel_size):
    exposure = Exposure(pixel_size, 300.0, dose)
    basis, curves = exposure_basis(n_frames, pixel_size, exposure)
    assert len(basis) == len(curves) <= min(n_frames, 7)
    k = torch.linspace(0.0, 0.5**0.5 / pixel_size, curves.shape[1], dtype=torch.float64)
    wanted = dose_weights(k, dose * torch.arange(n_frames).double(), 300.0)
    assert torch.allclose((basis.T @ curves).double(), wanted, atol=2e-5)


def test_the_sum_is_that_of_weighted_transforms(generator):
    frames = torch.randn(9, 50, 64, generator=generator)
    exposure = Exposure(0.8, 300.0, 3.0)
    basis, curves = exposure_basis(9, 0.8, exposure)
    sums = torch.einsum("rn,nyx->ryx", basis, frames)
    got = combine(list(torch.fft.rfft2(sums)), curves, 0.8, 64)
    weights = dose_weights(radius_grid((50, 64), 0.8), 3.0 * torch.arange(9).double(), 300.0)
    wanted = (torch.fft.rfft2(frames.double()) * weights).sum(0)
    # curves are read at the nearest of 8,192 frequencies
    assert torch.allclose(got.to(torch.complex128), wanted, atol=3e-4 * float(wanted.abs().max()))


def test_without_a_dose_all_frames_weigh_the_same():
    basis, curves = exposure_basis(4, 1.0, Exposure(1.0))
    assert torch.allclose(basis.T @ curves, torch.full((4, curves.shape[1]), 0.5), atol=1e-6)
