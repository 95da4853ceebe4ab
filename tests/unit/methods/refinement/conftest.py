"""Made-up particles whose truth is known: of maps, for the methods that align them, and flat ones, for statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.maximisation import AverageSums, Statistics, maximise
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel
from vitreous.methods.refinement.references import ClassAverages
from vitreous.methods.refinement.sampling import Sampling, in_plane, in_plane_sampling

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


BOX = 32


@dataclass(frozen=True)
class Flat:
    """One lopsided image seen n times, turned in its plane, through a CTF, in white noise."""

    reference: torch.Tensor  # (1, box, box)
    particles: ParticleSet
    truth: Poses
    noise: NoiseModel

    def one_pass(
        self, particles: ParticleSet, sampling: Sampling | None = None, *, scale_shell: int = 0, **settings: float
    ) -> tuple[Poses, Statistics, AverageSums]:
        """Expectation and maximisation with the true reference and noise."""
        grid = sampling or in_plane_sampling(12.0, 2.0, 1.0)
        prior = Prior(self.noise, 1.0, torch.zeros(1, len(grid.rotations)))
        # a mask wider than the box: nothing is cut off
        how = Settings(**{"max_shell": 13, "mask_radius": 40.0, "low_precision": False, **settings})  # type: ignore[arg-type]
        references = ClassAverages(self.reference, how.max_shell)
        expectation = Expectation(particles, references, grid, prior, how)
        sums = AverageSums(1, BOX, how.max_shell)
        everyone = np.arange(len(particles))
        start = Poses.unknown(len(particles))
        return (*maximise(expectation, everyone, start, sums, scale_shell=scale_shell), sums)


@pytest.fixture(scope="session")
def make_flat() -> Callable[..., Flat]:
    """make_flat(n, noise, seed, **fields of the ParticleSet)."""

    def make(n: int, noise: float, seed: int, **given: object) -> Flat:
        generator = torch.Generator().manual_seed(seed)
        axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        blobs = ((5, -3, 1.2), (-4, 2, 1.5), (0, 6, 1.1), (-6, -6, 1.2))
        reference = sum(torch.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s * s)) for a, b, s in blobs).float()[None] * 2
        u = 9000 + 9000 * torch.rand(n, generator=generator, dtype=torch.float64)
        defocus = Defocus(u, u - 500, 0 * u + 40, 0 * u)
        blank = ArraySource(torch.zeros(n, BOX, BOX), PIXEL)
        scope = (Microscope(300.0, 2.7, 0.1),)
        particles = ParticleSet(blank, np.zeros(n, np.int64), scope, defocus, **given)  # type: ignore[arg-type]
        everything = Coefficients.within(BOX, BOX // 2)
        rotations = in_plane(torch.rand(n, generator=generator, dtype=torch.float64) * 360)
        packed = ClassAverages(reference, BOX // 2).slices(0, rotations, everything.coordinates)
        packed = packed * particles.ctf(np.arange(n), everything)
        images = to_real(everything.scatter(packed), (BOX, BOX)).float()
        images = images + noise * torch.randn(images.shape, generator=generator)
        truth = replace(Poses.unknown(n), rotations=rotations.numpy())
        sigma2 = torch.full((1, BOX // 2 + 1), noise**2 * BOX**2 / 2, dtype=torch.float64)
        return Flat(reference, replace(particles, images=ArraySource(images, PIXEL)), truth, NoiseModel(sigma2))

    return make
