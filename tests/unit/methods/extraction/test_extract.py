from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vitreous.core.fourier import rescale
from vitreous.methods.extraction.extract import ExtractionRecipe, default_background_radius, extract, particle_images

RECIPE = ExtractionRecipe(box=64, background_radius=default_background_radius(64), rescale=32)


def test_order_is_kept_over_batches(generator):
    micrograph = torch.randn(300, 320, generator=generator)
    centres = np.random.default_rng(0).integers(40, 260, (37, 2))
    small = torch.cat(list(extract(micrograph, centres, RECIPE, memory=3 * 4 * 6 * 64**2)))
    large = torch.cat(list(extract(micrograph, centres, RECIPE)))
    assert small.shape == (37, 32, 32)
    torch.testing.assert_close(small, large)


def test_a_dark_particle_comes_out_white_and_centred(generator):
    y, x = torch.meshgrid(torch.arange(200.0), torch.arange(220.0), indexing="ij")
    micrograph = 10 - 5 * torch.exp(-((x - 91) ** 2 + (y - 120) ** 2) / (2 * 8.0**2))
    micrograph = micrograph + 0.1 * torch.randn(200, 220, generator=generator)
    image = torch.cat(list(extract(micrograph, np.array([[120, 91]]), RECIPE)))[0]
    peak = int(image.argmax())
    assert abs(peak // 32 - 16) <= 1
    assert abs(peak % 32 - 16) <= 1
    assert image[16, 16] > 5


def test_plain_extraction_is_the_window_itself(generator):
    windows = torch.randn(3, 64, 64, generator=generator)
    plain = replace(RECIPE, rescale=0, invert=False, normalise=False)
    assert torch.equal(particle_images(windows, plain), windows)


def test_single_precision_follows_double(generator):
    windows = torch.randn(3, 64, 64, generator=generator, dtype=torch.float64) + 20
    fast = particle_images(windows.float(), RECIPE)
    torch.testing.assert_close(fast.double(), particle_images(windows, RECIPE), atol=1e-4, rtol=0)


def test_rescaling_keeps_what_the_small_grid_can_hold(generator):
    small = torch.randn(2, 32, 32, generator=generator, dtype=torch.float64)
    small = rescale(rescale(small, (24, 24)), (32, 32))  # nothing at the Nyquist row
    plain = replace(RECIPE, normalise=False, invert=False)
    torch.testing.assert_close(particle_images(rescale(small, (64, 64)), plain), small)
