"""Made-up particles of known maps, for the methods that align them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import to_real
from vitreous.core.rotations import random_rotations
from vitreous.data.images import ArraySource
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet, Poses

Simulate = Callable[[Tensor, int, float, torch.Generator], tuple[ParticleSet, Poses]]
PIXEL = 4.0


def _simulate(densities: Tensor, n: int, noise: float, generator: torch.Generator) -> tuple[ParticleSet, Poses]:
    """n particles of maps (k, z, y, x) in turn, at random poses, with CTF.

    noise: standard deviation over that of the signal in the whole box (3: signal-to-noise ratio 1/9).
    Returns their truth too.
    """
    box, k = densities.shape[-1], len(densities)
    rotations = random_rotations(n, generator)
    origins = (torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5) * 4
    u = 8000 + 10000 * torch.rand(n, generator=generator, dtype=torch.float64)
    defocus = Defocus(u, u - 300, torch.full_like(u, 20.0), torch.zeros_like(u))
    groups = np.zeros(n, np.int64)
    blank = ParticleSet(ArraySource(torch.zeros(n, box, box), PIXEL), groups, (Microscope(300.0, 2.7, 0.1),), defocus)
    coefficients = Coefficients.within(box, box // 2)
    packed = torch.zeros(n, len(coefficients), dtype=torch.complex64)
    for kind, density in enumerate(densities):
        packed[kind::k] = project(prepare_volume(density), rotations[kind::k], coefficients.coordinates)
    packed = packed * blank.ctf(np.arange(n), coefficients) * coefficients.shift_phases(-origins)
    images = to_real(coefficients.scatter(packed), (box, box)).float()
    images = images + noise * images.std() * torch.randn(images.shape, generator=generator)
    truth = replace(Poses.unknown(n), classes=np.arange(n) % k, rotations=rotations.numpy(), origins=origins.numpy())
    return replace(blank, images=ArraySource(images, PIXEL)), truth


@pytest.fixture(scope="session")
def simulate() -> Simulate:
    return _simulate
