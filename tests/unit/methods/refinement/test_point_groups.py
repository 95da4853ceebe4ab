"""Every point group through auto-refine: the map keeps its axes, poses come back up to the group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import to_real
from vitreous.core.rotations import random_rotations
from vitreous.core.so3 import angular_step
from vitreous.core.symmetry import order_of, symmetric_distance, symmetry_matrices
from vitreous.data.images import ArraySource
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.auto_refine import auto_refine
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, split_halves
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet, Poses

BOX, PIXEL, N = 32, 4.0, 48


def blobs(symmetry: str, generator: torch.Generator) -> torch.Tensor:
    """Blobs off every axis and all their mates; one alone where there are sixty of each."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    radii = torch.tensor([11.0] if order_of(symmetry) == 60 else [5.0, 6.5, 8.0, 9.0, 10.0], dtype=torch.float64)
    centres = random_rotations(len(radii), generator)[:, 2] * radii[:, None]
    mates = (centres[:, None, None] @ symmetry_matrices(symmetry)).reshape(-1, 3)
    return sum(torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / 4.0) for c in mates).float()


@pytest.mark.parametrize(
    "symmetry",
    [
        "C3",
        "D3",
        "T",
        "O",
        "I1",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("C7", "D7", "I2", "I3", "I4")),
    ],
)
def test_refinement_in_every_group(symmetry: str, generator: torch.Generator) -> None:
    density = blobs(symmetry, generator)
    rotations = random_rotations(N, generator)
    u = 9000 + 6000 * torch.rand(N, generator=generator, dtype=torch.float64)
    blank = ParticleSet(
        ArraySource(torch.zeros(N, BOX, BOX), PIXEL),
        np.zeros(N, np.int64),
        (Microscope(300.0, 2.7, 0.1),),
        Defocus(u, u, 0 * u, 0 * u),
    )
    k = Coefficients.within(BOX, BOX // 2)
    packed = project(prepare_volume(density), rotations, k.coordinates) * blank.ctf(np.arange(N), k)
    images = to_real(k.scatter(packed), (BOX, BOX)).float()
    images = images + 0.5 * images.std() * torch.randn(images.shape, generator=generator)
    particles = replace(blank, images=ArraySource(images, PIXEL))
    options = AutoRefineOptions(symmetry, 110.0, ini_high=16.0, offset_range=2.0, max_iterations=2, memory=1 << 29)
    start = Poses.unknown(N)
    state = list(auto_refine(particles, start, split_halves(N, 1), density, options))[-1]
    assert state.schedule.final
    away = symmetric_distance(torch.from_numpy(state.poses.rotations), rotations, symmetry)
    assert float(away.median()) < angular_step(options.first_order + 1)  # of the finer grid
    a, b = state.density - state.density.mean(), density - density.mean()
    # taken for another of its kind (I1 for I2, I3 for I4) it would be 0.8 at most
    assert float((a * b).sum() / (a.norm() * b.norm())) > 0.95
