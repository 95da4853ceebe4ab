from __future__ import annotations

import pytest
import torch

from vitreous.core.masks import distance_grid
from vitreous.methods.extraction.normalise import (
    background_region,
    background_statistics,
    fit_planes,
    normalise,
    replace_dust,
)


def plane(box: int, a: float, b: float, c: float) -> torch.Tensor:
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    return a * axis[None, :] + b * axis[:, None] + c


def test_plane_under_a_particle_is_found_exactly():
    truth = torch.stack([plane(32, 0.3, -0.2, 5.0), plane(32, 0.0, 0.1, -2.0)])
    images = truth.clone()
    images[:, 10:22, 10:22] += 100.0  # inside the circle: must not matter
    fitted = fit_planes(images, background_region(32, 12))
    torch.testing.assert_close(fitted, truth, atol=1e-9, rtol=0)


@pytest.mark.parametrize("ramp", [True, False])
def test_background_becomes_standard(generator, ramp):
    images = 40.0 + 7.0 * torch.randn(5, 48, 48, generator=generator, dtype=torch.float64)
    images[:, 20:28, 20:28] -= 30.0
    region = background_region(48, 18)
    mean, spread = background_statistics(normalise(images, region, ramp=ramp), region)
    assert mean.abs().max() < 1e-12
    torch.testing.assert_close(spread, torch.ones_like(spread))


def test_normalisation_ignores_scale_offset_and_ramp(generator):
    images = torch.randn(3, 32, 32, generator=generator, dtype=torch.float64)
    region = background_region(32, 12)
    torch.testing.assert_close(normalise(5.0 * images + plane(32, 0.4, 0.1, 9.0), region), normalise(images, region))


def test_float32_agrees_with_float64(generator):
    images = 1000.0 + torch.randn(4, 64, 64, generator=generator, dtype=torch.float64)
    region = background_region(64, 24)
    fast = normalise(images.float(), region).double()
    torch.testing.assert_close(fast, normalise(images, region), atol=2e-3, rtol=0)


def test_blank_images_stay_finite():
    images = torch.full((2, 32, 32), 3.0)
    assert torch.isfinite(normalise(images, background_region(32, 12), ramp=False)).all()


def test_dust_of_each_side_is_replaced(generator):
    images = torch.randn(2, 64, 64, generator=generator)
    images[0, 30, 30], images[1, 5, 5] = 50.0, -60.0
    region = background_region(64, 24)
    untouched = distance_grid(64) < 3
    white = replace_dust(images, region, white=6.0, generator=generator)
    assert white[0].max() < 6
    assert white[1].min() == -60.0
    both = replace_dust(images, region, white=6.0, black=6.0, generator=generator)
    assert both.abs().max() < 6
    assert torch.equal(both[1][untouched], images[1][untouched])
    assert replace_dust(images, region) is images


def test_a_circle_without_background_is_refused():
    with pytest.raises(ValueError, match="leaves no background"):
        background_region(32, 40)
