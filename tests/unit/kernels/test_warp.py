from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import radius_grid, shift_images
from vitreous.kernels.warp import cuda, prefilter, warp, warp_reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def spline_coefficients(image: torch.Tensor) -> torch.Tensor:
    ky, kx = prefilter(tuple(image.shape))
    return torch.fft.irfft2(torch.fft.rfft2(image) * (ky * kx), s=tuple(image.shape))


def constant(dx: float, dy: float) -> torch.Tensor:
    field = torch.zeros(2, 6, dtype=torch.float64)
    field[0, 0], field[1, 0] = dx, dy
    return field


@pytest.mark.parametrize("device", DEVICES)
def test_every_form_agrees_with_the_reference(generator, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    image = torch.randn(70, 90, generator=generator)
    field = torch.randn(2, 6, generator=generator, dtype=torch.float64) * 4
    got = warp(image.to(device), field.to(device)).cpu()
    assert torch.allclose(got.double(), warp_reference(image, field), atol=2e-5)


def test_the_form_for_gpus_agrees_on_the_cpu_too(generator):
    image = torch.randn(70, 90, generator=generator)
    field = torch.randn(2, 6, generator=generator, dtype=torch.float64) * 4
    assert torch.allclose(cuda.warp(image, field).double(), warp_reference(image, field), atol=2e-5)


def test_no_displacement_gives_the_image_back(generator):
    image = torch.randn(48, 64, generator=generator)
    got = warp(spline_coefficients(image), constant(0.0, 0.0))
    assert torch.allclose(got, image, atol=1e-5)


def test_reads_at_the_displaced_place_like_a_fourier_shift(generator):
    white = torch.fft.rfft2(torch.randn(64, 64, generator=generator))
    image = torch.fft.irfft2(white * (radius_grid((64, 64)) < 0.25), s=(64, 64)).float()
    got = warp(spline_coefficients(image), constant(1.3, -0.6))
    # content at (x + 1.3, y - 0.6) comes to (x, y): moved by (-1.3, +0.6)
    exact = shift_images(image, torch.tensor([0.6, -1.3]))
    assert (got - exact).std() < 0.01 * image.std()


def test_polynomial_terms_stand_where_they_should(generator):
    ramp = torch.arange(80, dtype=torch.float32)[None, :].expand(60, 80).contiguous()
    field = torch.tensor([[0.5, 2.0, -3.0, 1.5, -2.5, 4.0], [0.0] * 6], dtype=torch.float64)
    # a ramp is its own spline (cubic splines reproduce polynomials)
    got = warp(ramp, field)
    u = torch.arange(80) / 80 - 0.5
    v = torch.arange(60)[:, None] / 60 - 0.5
    wanted = ramp + 0.5 + 2 * u - 3 * u**2 + 1.5 * v - 2.5 * v**2 + 4 * u * v
    assert torch.allclose(got[:, 6:-6], wanted[:, 6:-6], atol=1e-4)
