"""Where there is no signal the half-maps do not agree: pure noise, and a spectrum cut off, under either prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import to_real
from vitreous.core.fsc import fsc
from vitreous.core.masks import soft_sphere
from vitreous.core.rotations import random_rotations
from vitreous.core.symmetry import symmetric_distance, symmetry_matrices
from vitreous.data.images import ArraySource
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.maps.half_map_fsc import half_map_fsc
from vitreous.methods.refinement.adaptive_prior import AdaptivePrior
from vitreous.methods.refinement.auto_refine import auto_refine
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, split_halves
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.regularise import classic

pytestmark = pytest.mark.slow
BOX, PIXEL, SYMMETRY, N = 32, 4.0, "D2", 160
START = 40.0  # A: low-pass of the first reference, and what the halves share
START_SHELL = round(BOX * PIXEL / START)
EDGE = 5.0  # pixels, of masks; it spreads a shell of the common reference over some box / edge others
REACHED = START_SHELL + round(BOX / EDGE)


def density(generator):
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = (torch.rand(10, 3, generator=generator, dtype=torch.float64) - 0.5) * 14
    centres = (centres[:, None, None] @ symmetry_matrices(SYMMETRY)).reshape(-1, 3)
    return sum(torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / 1.6) for c in centres).float()


def particles_of(volume, last_shell, generator, noise=1.5, n=N):
    """Particles with signal up to last_shell (0: none), noise in all shells; and their rotations."""
    rotations = random_rotations(n, generator)
    coefficients = Coefficients.within(BOX, BOX // 2)
    packed = project(prepare_volume(volume), rotations, coefficients.coordinates)
    images = to_real(coefficients.scatter(packed), (BOX, BOX)).float()
    spread = noise * images.std()
    images = to_real(coefficients.scatter(packed * (coefficients.shells <= last_shell)), (BOX, BOX)).float()
    images = images * (last_shell > 0) + spread * torch.randn(images.shape, generator=generator)
    nothing = torch.zeros(n, dtype=torch.float64)
    defocus = Defocus(nothing, nothing, nothing, nothing)
    microscopes = (Microscope(300.0, 2.7, 0.1),)
    return ParticleSet(ArraySource(images, PIXEL), np.zeros(n, np.int64), microscopes, defocus, False), rotations


def refine(particles, volume, *, adaptive, masked, join, iterations, absolute_grey=True):
    options = AutoRefineOptions(
        SYMMETRY,
        0.75 * BOX * PIXEL,
        ini_high=START,
        join_halves=START if join else 0.0,
        offset_range=2.0,
        offset_step=1.0,
        local_order=3,
        absolute_grey=absolute_grey,
        max_iterations=iterations,
        regularise=AdaptivePrior() if adaptive else classic,
        memory=1 << 28,
    )
    if masked:
        mask = soft_sphere(BOX, 9.0, edge=EDGE, ndim=3)
        options = replace(options, mask=mask, half_map_fsc=lambda a, b: half_map_fsc(a, b, PIXEL, mask).corrected)
    return list(
        auto_refine(particles, Poses.unknown(len(particles)), split_halves(len(particles), 1), volume, options)
    )[-1]


def mean_beyond(curve, first):
    """Mean of an FSC over shells from `first` on, each weighted by its number of coefficients."""
    shells = torch.arange(first, BOX // 2, dtype=torch.float64)
    return float((curve[first : BOX // 2] * shells.square()).sum() / shells.square().sum())


@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("adaptive", [True, False])
def test_noise_does_not_agree(adaptive, masked, join):
    """The reference at 40 A, from which both halves start, is found again in noise (any program does); nothing beyond.

    Beyond means: beyond what the soft edge about the particle makes of it. The mean FSC beyond has a spread of 0.07
    from one set of noise to the next (the diameter and the symmetry leave few independent coefficients), so that of
    four is taken: 0.1 is three standard errors.
    """
    beyond = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        volume = density(generator)
        particles, _ = particles_of(volume, 0, generator, n=640)
        last = refine(particles, volume, adaptive=adaptive, masked=masked, join=join, iterations=3, absolute_grey=False)
        assert last.max_shell == BOX // 2
        assert last.shell <= REACHED
        beyond.append(mean_beyond(fsc(last.half_maps[0], last.half_maps[1]), REACHED))
    assert abs(np.mean(beyond)) < 0.1


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("adaptive", [True, False])
def test_no_agreement_beyond_the_last_shell_of_the_signal(adaptive, masked, generator):
    """Poses come from real signal, as in any refinement, and noise beyond it is aligned along: it must not show."""
    cut = 8
    volume = density(generator)
    particles, rotations = particles_of(volume, cut, generator)
    last = refine(particles, volume, adaptive=adaptive, masked=masked, join=True, iterations=6)
    distance = symmetric_distance(torch.from_numpy(last.poses.rotations), rotations, SYMMETRY)
    assert float(distance.median()) < 10.0
    assert float(last.curve[cut - 2]) > 0.5
    assert abs(mean_beyond(last.curve, cut + 3)) < 0.1
    assert last.shell <= cut + 2
