from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import crop_fourier, shift_images, to_fourier, to_real
from vitreous.methods.refinement.coefficients import Coefficients


@pytest.mark.parametrize("box", [16, 17, 32])
def test_half_plane_holds_the_whole_power(box: int, generator: torch.Generator) -> None:
    """Parseval: DC once and every other coefficient twice is the power of the band-limited image."""
    image = torch.randn(box, box, generator=generator, dtype=torch.float64)
    coefficients = Coefficients.within(box, box // 2 - 1)
    packed = coefficients.gather(to_fourier(image))
    limited = to_real(coefficients.scatter(packed), (box, box))
    power = packed.abs().square()
    expected = (2 * power.sum() - power[0]) / box**2
    torch.testing.assert_close(limited.square().sum(), expected)


@pytest.mark.parametrize("box", [16, 17])
def test_scatter_inverts_gather(box: int, generator: torch.Generator) -> None:
    small = torch.randn(2, 7, 7, generator=generator, dtype=torch.float64)
    images_ft = crop_fourier(to_fourier(small), (7, 7), (box, box))
    coefficients = Coefficients.within(box, 5)
    torch.testing.assert_close(coefficients.scatter(coefficients.gather(images_ft)), images_ft)


def test_lower_resolution_is_a_prefix() -> None:
    high, low = Coefficients.within(32, 12), Coefficients.within(32, 7)
    assert torch.equal(high.flat[: high.count(7)], low.flat)
    assert int(high.shell_counts().sum()) == len(high)


def test_phases_shift_images(generator: torch.Generator) -> None:
    image = torch.randn(1, 16, 16, generator=generator)
    shift = torch.tensor([[1.5, -2.25]])
    coefficients = Coefficients.within(16, 7)
    moved = coefficients.gather(to_fourier(image)) * coefficients.shift_phases(shift)
    expected = coefficients.gather(to_fourier(shift_images(image, shift)))
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)
