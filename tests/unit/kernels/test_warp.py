from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import radius_grid, shift_images
from vitreous.kernels.warp import add_warped, add_warped_reference, cpu, cuda, prefilter

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def sharpened(image: torch.Tensor) -> torch.Tensor:
    """An image without the spline's blur."""
    ky, kx = prefilter(tuple(image.shape))
    return torch.fft.irfft2(torch.fft.rfft2(image) * (ky * kx), s=tuple(image.shape))


def constant(dx: float, dy: float) -> torch.Tensor:
    field = torch.zeros(1, 2, 6, dtype=torch.float64)
    field[0, 0, 0], field[0, 1, 0] = dx, dy
    return field


def read(image: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(1, *image.shape)
    add_warped(out, image[None], field, torch.ones(1, 1))
    return out[0]


def smooth(shape: tuple[int, int], generator: torch.Generator, n: int) -> torch.Tensor:
    """Frames without their highest frequencies: what changes little over a tenth of a pixel."""
    white = torch.fft.rfft2(torch.randn(n, *shape, generator=generator))
    return torch.fft.irfft2(white * (radius_grid(shape) < 0.15), s=shape).float()


@pytest.mark.parametrize("device", DEVICES)
def test_every_form_agrees_with_the_reference_where_frames_move_as_a_whole(generator, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    frames = torch.randn(3, 70, 90, generator=generator)
    fields = torch.zeros(3, 2, 6, dtype=torch.float64)
    fields[:, :, 0] = torch.randn(3, 2, generator=generator, dtype=torch.float64) * 40  # over the edges, too
    coefficients = torch.randn(2, 3, generator=generator)
    coefficients[1, 1] = 0.0
    got, wanted = torch.ones(2, 70, 90, device=device), torch.ones(2, 70, 90, dtype=torch.float64)
    add_warped(got, frames, fields, coefficients)
    add_warped_reference(wanted, frames, fields, coefficients)
    assert torch.allclose(got.cpu().double(), wanted, atol=2e-5)


def test_tiles_follow_a_field_that_changes_slowly(generator):
    frames = smooth((300, 260), generator, 2)
    fields = torch.randn(2, 2, 6, generator=generator, dtype=torch.float64)
    fields[:, :, 0] *= 5
    got, wanted = torch.zeros(1, 300, 260), torch.zeros(1, 300, 260, dtype=torch.float64)
    add_warped(got, frames, fields, torch.ones(1, 2))
    add_warped_reference(wanted, frames, fields, torch.ones(1, 2))
    assert float((got - wanted).std() / wanted.std()) < 2e-3
    exactly, wanted = torch.zeros(1, 300, 260), torch.zeros(1, 300, 260, dtype=torch.float64)
    add_warped(exactly, frames, fields / 100, torch.ones(1, 2))
    add_warped_reference(wanted, frames, fields / 100, torch.ones(1, 2))
    assert float((exactly - wanted).std() / wanted.std()) < 1e-4


def test_steep_fields_take_small_tiles():
    fields = torch.zeros(1, 2, 6, dtype=torch.float64)
    assert cpu.tile_size(fields.numpy(), (4096, 4096)) == (64, 1)
    fields[0, 0, 1] = 10.0
    assert cpu.tile_size(fields.numpy(), (4096, 4096)) == (64, 1)
    fields[0, 1, 2] = 20.0
    assert cpu.tile_size(fields.numpy(), (4096, 4096)) == (64, 1)
    assert cpu.tile_size(fields.numpy(), (2048, 2048)) == (32, 1)
    assert cpu.tile_size(fields.numpy(), (512, 512)) == (16, 1)
    fields[0, 0, 4] = 100.0  # along the other axis it is only a matter of room
    assert cpu.tile_size(fields.numpy(), (512, 512)) == (16, 5)


def test_lines_follow_a_field_that_is_steep_along_the_columns(generator):
    frames = smooth((300, 260), generator, 2)
    fields = torch.zeros(2, 2, 6, dtype=torch.float64)
    fields[:, :, 3] = torch.tensor([[9.0, -7.0], [-12.0, 12.0]])
    fields[:, :, 4] = 8.0
    got, wanted = torch.zeros(1, 300, 260), torch.zeros(1, 300, 260, dtype=torch.float64)
    add_warped(got, frames, fields, torch.ones(1, 2))
    add_warped_reference(wanted, frames, fields, torch.ones(1, 2))
    assert float((got - wanted).std() / wanted.std()) < 0.015


@pytest.mark.parametrize("n_sums", [1, 2, 5])
@pytest.mark.parametrize("n_frames", [1, 4, 6])
def test_any_number_of_frames_and_sums(generator, n_sums, n_frames):
    frames = torch.randn(n_frames, 50, 130, generator=generator)
    fields = torch.randn(n_frames, 2, 6, generator=generator, dtype=torch.float64) * 0.01
    coefficients = torch.randn(n_sums, n_frames, generator=generator)
    coefficients[-1] = 0.0
    got, wanted = torch.ones(n_sums, 50, 130), torch.ones(n_sums, 50, 130, dtype=torch.float64)
    add_warped(got, frames, fields, coefficients)
    add_warped_reference(wanted, frames, fields, coefficients)
    assert float((got - wanted).abs().max()) < 0.01


def test_sums_that_are_not_kept_are_made_anew(generator):
    frames = torch.randn(2, 70, 90, generator=generator)
    fields, coefficients = torch.zeros(2, 2, 6, dtype=torch.float64), torch.ones(2, 2)
    got = torch.full((2, 70, 90), 5.0)
    got[1] = torch.nan
    add_warped(got, frames, fields, coefficients, n_kept=1)
    assert torch.allclose(got[0] - 5.0, got[1], atol=1e-5)


def test_the_form_for_gpus_agrees_on_the_cpu_too(generator):
    frames = torch.randn(2, 70, 90, generator=generator)
    fields = torch.randn(2, 2, 6, generator=generator, dtype=torch.float64) * 4
    coefficients = torch.tensor([[1.0, 0.0], [0.5, -2.0]])
    got, wanted = torch.zeros(2, 70, 90), torch.zeros(2, 70, 90, dtype=torch.float64)
    cuda.add_warped(got, frames, fields, coefficients)
    add_warped_reference(wanted, frames, fields, coefficients)
    assert torch.allclose(got.double(), wanted, atol=5e-5)


def test_no_displacement_gives_the_image_back(generator):
    image = torch.randn(48, 64, generator=generator)
    assert torch.allclose(sharpened(read(image, constant(0.0, 0.0))), image, atol=1e-5)


def test_reads_at_the_displaced_place_like_a_fourier_shift(generator):
    white = torch.fft.rfft2(torch.randn(64, 64, generator=generator))
    image = torch.fft.irfft2(white * (radius_grid((64, 64)) < 0.25), s=(64, 64)).float()
    got = sharpened(read(image, constant(1.3, -0.6)))
    # content at (x + 1.3, y - 0.6) comes to (x, y): moved by (-1.3, +0.6)
    exact = shift_images(image, torch.tensor([0.6, -1.3]))
    assert (got - exact).std() < 0.01 * image.std()


def test_polynomial_terms_stand_where_they_should():
    ramp = torch.arange(80, dtype=torch.float32)[None, :].expand(60, 80).contiguous()
    field = torch.tensor([[[0.5, 2.0, -3.0, 1.5, -2.5, 4.0], [0.0] * 6]], dtype=torch.float64)
    # a ramp is its own spline (cubic splines reproduce polynomials)
    wanted = torch.zeros(1, 60, 80, dtype=torch.float64)
    add_warped_reference(wanted, ramp[None], field, torch.ones(1, 1))
    u = torch.arange(80) / 80 - 0.5
    v = torch.arange(60)[:, None] / 60 - 0.5
    places = ramp + 0.5 + 2 * u - 3 * u**2 + 1.5 * v - 2.5 * v**2 + 4 * u * v
    assert torch.allclose(wanted[0, :, 6:-6], places[:, 6:-6].double(), atol=1e-4)
    # half a tile of 16 px away the steepest of these terms has changed by 0.7 px, of which 0.5 are followed
    assert float((read(ramp, field) - places)[:, 6:-6].abs().max()) < 0.3
