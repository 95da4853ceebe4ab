from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import to_fourier
from vitreous.data.images import ArraySource
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet
from vitreous.methods.refinement.rescaled import rescaled_for


def _particles(box: int, generator: torch.Generator) -> ParticleSet:
    u = torch.full((3,), 12000.0, dtype=torch.float64)
    defocus = Defocus(u, u - 500, torch.full_like(u, 30.0), torch.zeros_like(u))
    images = ArraySource(torch.randn(3, box, box, generator=generator), 2.0)
    return ParticleSet(images, np.zeros(3, np.int64), (Microscope(300.0, 2.7, 0.1),), defocus)


def test_smaller_images_hold_the_same_coefficients_and_ctf(generator: torch.Generator) -> None:
    full = _particles(96, generator)
    small = rescaled_for(full, 16.0)
    assert small.box == 32
    assert small.pixel_size == pytest.approx(6.0)
    index = np.array([2, 0])
    low_full, low_small = Coefficients.within(96, 10), Coefficients.within(32, 10)
    torch.testing.assert_close(small.ctf(index, low_small), full.ctf(index, low_full), rtol=1e-4, atol=1e-4)
    a = low_small.gather(to_fourier(small.images[index])) / 32**2
    b = low_full.gather(to_fourier(full.images[index])) / 96**2
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_images_that_are_small_already_stay_as_they_are(generator: torch.Generator) -> None:
    full = _particles(48, generator)
    assert rescaled_for(full, 5.0) is full
