from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import radius_grid, to_fourier, to_real
from vitreous.methods.maps.half_map_fsc import half_map_fsc
from vitreous.methods.maps.sharpening import Mtf, Sharpening, fit_line, fsc_weight, sharpen


def damped_noise(box: int, voxel_size: float, b_factor: float, generator: torch.Generator) -> torch.Tensor:
    white = torch.randn(box, box, box, generator=generator, dtype=torch.float64)
    k = radius_grid((box,) * 3, voxel_size)
    return to_real(to_fourier(white, 3) * torch.exp(-0.25 * b_factor * k * k), (box,) * 3, 3)


def test_the_b_factor_is_found_and_undone(generator):
    density = damped_noise(64, 1.2, 120.0, generator)
    curves = half_map_fsc(density, density, 1.2)
    result = sharpen(density, density, curves, Sharpening(fit_lowres=10.0))
    assert result.guinier.b_factor == pytest.approx(-120.0, abs=4.0)
    assert result.guinier.correlation > 0.99
    assert result.guinier.sharpened[8:32].std() < 0.05


def test_a_given_b_factor_is_applied(generator):
    density = damped_noise(32, 2.0, 0.0, generator)
    curves = half_map_fsc(density, density, 2.0)
    result = sharpen(density, density, curves, Sharpening(b_factor=-100.0, lowpass=0.1, fsc_weighting=False))
    k = radius_grid((32,) * 3, 2.0)
    expected = to_real(to_fourier(density, 3) * torch.exp(25.0 * k * k), (32,) * 3, 3)
    assert torch.allclose(result.density.double(), expected, atol=1e-4)


def test_mtf_is_divided_out(generator):
    density = damped_noise(32, 2.0, 0.0, generator)
    curves = half_map_fsc(density, density, 2.0)
    mtf = Mtf(torch.tensor([0.0, 0.5]).double(), torch.tensor([1.0, 0.4]).double(), 1.0)
    result = sharpen(density, density, curves, Sharpening(b_factor=0.0, mtf=mtf, lowpass=0.1, fsc_weighting=False))
    k = radius_grid((32,) * 3, 2.0)
    expected = to_real(to_fourier(density, 3) / (1.0 - 1.2 * k.clamp(max=0.5)), (32,) * 3, 3)
    assert torch.allclose(result.density.double(), expected, atol=1e-4)


def test_weight_is_zero_where_there_is_nothing():
    assert torch.equal(fsc_weight(torch.tensor([1.0, 0.0, -0.3])), torch.tensor([1.0, 0.0, 0.0]))


def test_too_few_shells_give_no_fit():
    x = torch.linspace(0, 0.02, 10)
    assert fit_line(x, x, 100.0, 90.0) == (0.0, 0.0, 0.0)


def test_a_coarse_map_is_fitted_over_a_wider_range_and_says_so(generator):
    density = damped_noise(32, 3.5, 200.0, generator)
    curves = half_map_fsc(density, density, 3.5)
    result = sharpen(density, density, curves, Sharpening(fit_lowres=8.0))
    assert result.guinier.fit_range[0] == 15.0
    assert any("15 A" in remark for remark in result.remarks)
