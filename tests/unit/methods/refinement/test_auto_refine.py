"""Auto-refine on simulated particles: poses come back, halves stay apart, resuming changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import to_real
from vitreous.core.fsc import fsc, resolution_shell
from vitreous.core.rotations import random_rotations
from vitreous.core.so3 import angular_step, orientation_grid
from vitreous.core.symmetry import symmetric_distance, symmetry_matrices
from vitreous.data.images import ArraySource
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement import accuracy
from vitreous.methods.refinement.auto_refine import auto_refine, start
from vitreous.methods.refinement.auto_refine_state import (
    AutoRefineOptions,
    Schedule,
    split_halves,
    state_from_arrays,
    state_to_arrays,
)
from vitreous.methods.refinement.auto_sampling import advance, direction_prior, judge, local_samplings
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.gold_standard import signal_to_noise, whole_map_fsc
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel
from vitreous.methods.refinement.references import Maps

BOX, PIXEL, SYMMETRY = 32, 4.0, "D2"
OPTIONS = AutoRefineOptions(SYMMETRY, 96.0, ini_high=40.0, memory=1 << 29)


def blobs(generator, width=1.5):
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = (torch.rand(6, 3, generator=generator, dtype=torch.float64) - 0.5) * 0.45 * BOX
    centres = (centres[:, None, None] @ symmetry_matrices(SYMMETRY)).reshape(-1, 3)
    return sum(
        torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * width**2)) for c in centres
    ).float()


def simulate(density, n, noise, generator):
    """Particles at random poses and origins, and their truth."""
    rotations = random_rotations(n, generator)
    origins = (torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5) * 5
    u = 8000 + 10000 * torch.rand(n, generator=generator, dtype=torch.float64)
    defocus = Defocus(u, u - 300, torch.full_like(u, 20.0), torch.zeros_like(u))
    groups = np.zeros(n, np.int64)
    blank = ParticleSet(ArraySource(torch.zeros(n, BOX, BOX), PIXEL), groups, (Microscope(300.0, 2.7, 0.1),), defocus)
    coefficients = Coefficients.within(BOX, BOX // 2)
    packed = project(prepare_volume(density), rotations, coefficients.coordinates)
    packed = packed * blank.ctf(np.arange(n), coefficients) * coefficients.shift_phases(-origins)
    images = to_real(coefficients.scatter(packed), (BOX, BOX)).float()
    images = images + noise * images.std() * torch.randn(images.shape, generator=generator)
    truth = replace(Poses.unknown(n), rotations=rotations.numpy(), origins=origins.numpy())
    return replace(blank, images=ArraySource(images, PIXEL)), truth


@pytest.fixture(scope="module")
def refined():
    """Every state of a whole refinement from a reference of wrong grey values."""
    generator = torch.Generator().manual_seed(5)
    density = blobs(generator)
    particles, truth = simulate(density, 240, 1.0, generator)
    halves = split_halves(len(particles), 1)
    options = replace(OPTIONS, max_iterations=8)
    states = list(auto_refine(particles, Poses.unknown(240), halves, 0.02 * density, options))
    return density, particles, truth, halves, options, states


@pytest.mark.slow
def test_poses_and_map_come_back(refined):
    density, _, truth, _, _, states = refined
    last = states[-1]
    error = symmetric_distance(torch.from_numpy(last.poses.rotations), torch.from_numpy(truth.rotations), SYMMETRY)
    assert float(error.median()) < 4.0
    assert np.median(np.abs(last.poses.origins - truth.origins)) < 0.3
    curve = fsc(last.density, density)
    assert resolution_shell(curve, 0.5) >= 9  # the density is a heap of blobs that hold nothing beyond shell 10
    # The half-maps do not promise more than the truth gives.
    assert last.shell <= resolution_shell(curve, 0.5) + 2
    scale = float((last.density * density).sum() / density.square().sum())
    assert scale == pytest.approx(1.0, abs=0.15)


@pytest.mark.slow
def test_a_resumed_run_is_the_same_to_the_bit(refined):
    density, particles, _, halves, options, states = refined
    halfway = state_from_arrays(state_to_arrays(states[3]))
    again = list(auto_refine(particles, Poses.unknown(240), halves, density, options, resume=halfway))
    assert len(again) == len(states) - 4
    assert torch.equal(again[-1].density, states[-1].density)
    assert np.array_equal(again[-1].poses.rotations, states[-1].poses.rotations)


@pytest.mark.slow
def test_halves_do_not_mix(refined):
    """Half 2 replaced by noise: its map cannot agree with half 1, though both started from one reference."""
    density, particles, _, halves, options, _ = refined
    generator = torch.Generator().manual_seed(9)
    images = particles.images[np.arange(len(particles))]
    images[torch.from_numpy(halves == 2)] = images.std() * torch.randn(images[halves == 2].shape, generator=generator)
    spoilt = replace(particles, images=ArraySource(images, PIXEL))
    options = replace(options, max_iterations=3, join_halves=0.0)
    last = list(auto_refine(spoilt, Poses.unknown(240), halves, density, options))[-1]
    start_shell = round(BOX * PIXEL / options.ini_high)
    assert float(last.curve[start_shell + 3 :].max()) < 0.5
    assert last.shell <= start_shell + 3


def test_first_state_has_the_grey_values_of_the_data():
    generator = torch.Generator().manual_seed(3)
    density = blobs(generator)
    particles, _ = simulate(density, 60, 0.5, generator)
    state = start(particles, Poses.unknown(60), split_halves(60, 1), 50.0 * density, OPTIONS)
    ours = state.halves[0].density
    low = (
        start(particles, Poses.unknown(60), split_halves(60, 1), density, replace(OPTIONS, absolute_grey=True))
        .halves[0]
        .density
    )
    assert float((ours * low).sum() / low.square().sum()) == pytest.approx(1.0, abs=0.25)
    assert torch.equal(state.halves[0].density, state.halves[1].density)


def test_halves_are_equal_and_seeded():
    halves = split_halves(101, 4)
    assert abs(int((halves == 1).sum()) - int((halves == 2).sum())) == 1
    assert np.array_equal(halves, split_halves(101, 4))
    assert not np.array_equal(halves, split_halves(101, 5))


def test_signal_to_noise_of_an_fsc():
    curve = torch.tensor([1.0, 0.5, 0.143, -0.2])
    assert torch.allclose(signal_to_noise(curve)[1:3], torch.tensor([1.0, 0.1669], dtype=torch.float64), atol=1e-3)
    assert float(signal_to_noise(curve)[3]) == pytest.approx(0.001, rel=0.01)
    assert float(whole_map_fsc(curve)[2]) == pytest.approx(0.5, abs=1e-3)


def state_like(schedule, rotation_accuracy, offset_accuracy=0.5, offset_change=0.4):
    class State:
        pass

    state = State()
    state.schedule, state.iteration = schedule, 3
    state.rotation_accuracy, state.offset_accuracy = rotation_accuracy, offset_accuracy
    state.offset_change = offset_change
    return state


def test_sampling_gets_finer_when_stuck_and_stops_at_the_accuracy():
    stuck = Schedule(2, 5.0, 2.0, no_gain=1, no_change=1, best_shell=9)
    finer = advance(state_like(stuck, 2.0), OPTIONS)
    assert (finer.order, finer.no_gain, finer.no_change) == (3, 0, 0)
    assert finer.offset_step <= 2.0 and finer.offset_range <= 5.0 * 1.3
    assert advance(state_like(replace(stuck, no_gain=0), 2.0), OPTIONS).order == 2
    # 7.5 degrees (order 2, oversampled) is fine enough for an accuracy above 10.
    assert advance(state_like(stuck, 10.5), OPTIONS).final
    assert not advance(state_like(stuck, 9.5), OPTIONS).final


def test_a_local_grid_about_as_fine_as_the_accuracy_that_gained_nothing_is_the_last():
    local = Schedule(OPTIONS.local_order, 2.0, 1.0, no_gain=1, no_change=1, best_shell=20, entry_shell=20)
    fine = angular_step(OPTIONS.local_order + OPTIONS.oversampling)
    accuracy = fine / 1.4  # the step is not yet below three quarters of it
    assert advance(state_like(local, accuracy), OPTIONS).final
    assert advance(state_like(local, fine / 1.6), OPTIONS).order == local.order + 1
    assert not advance(state_like(replace(local, best_shell=21), accuracy), OPTIONS).final
    assert not advance(state_like(replace(local, no_gain=0), accuracy), OPTIONS).final
    assert not advance(state_like(replace(local, order=OPTIONS.local_order - 1), accuracy), OPTIONS).final


def test_progress_is_judged():
    schedule = Schedule(2, 5.0, 2.0, best_shell=5)
    better = judge(schedule, 6, 10.0, 1.0)
    assert (better.no_gain, better.no_change, better.best_shell) == (0, 0, 6)
    same = judge(better, 6, 9.9, 0.99)
    assert (same.no_gain, same.no_change) == (1, 1)
    assert judge(same, 5, 5.0, 1.0).no_change == 0


def test_local_samplings_list_each_particle_s_neighbours(generator):
    n = 40
    rotations = random_rotations(n, generator).numpy()
    mine = np.arange(1, n, 2)
    schedule = Schedule(4, 2.0, 1.0)
    seen = []
    identity = torch.eye(3, dtype=torch.float64)
    for chunk, sampling, candidates in local_samplings(schedule, OPTIONS, mine, rotations, identity, (0.0, 0.0)):
        seen.extend(chunk.tolist())
        assert len(sampling.fine_rotations) == 8 * len(sampling.rotations)
        counts = np.diff(candidates.starts)
        assert (counts[chunk] > 10).all()
        assert counts.sum() == counts[chunk].sum() == len(candidates.rows)
        for particle in chunk:
            rows = candidates.rows[candidates.starts[particle] : candidates.starts[particle + 1]]
            near = sampling.rotations[torch.from_numpy(rows)]
            pose = torch.from_numpy(rotations[particle]).expand_as(near)
            distance = symmetric_distance(near, pose, SYMMETRY)
            assert float(distance.max()) < 3 * angular_step(4) * 2**0.5 + 0.1
    assert sorted(seen) == mine.tolist()


def test_direction_prior_sums_to_one_and_follows_counts():
    grid = orientation_grid(2, SYMMETRY)
    counts = torch.zeros(12 * 4**2, dtype=torch.float64)
    pixel = int(grid.orientations[0]) // 24
    counts[pixel] = 100.0
    prior = direction_prior(grid, counts)[0].exp()
    assert float(prior.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(prior[:24].sum()) == pytest.approx(101 / (100 + len(grid) / 24), rel=1e-4)
    assert float(direction_prior(grid, torch.zeros(0)).exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_accuracy_improves_with_less_noise():
    generator = torch.Generator().manual_seed(2)
    density = blobs(generator)
    particles, truth = simulate(density, 30, 1.0, generator)
    references = Maps([density], 12)
    found = []
    for sigma in (1.0, 0.25):
        noise = NoiseModel(torch.full((1, BOX // 2 + 1), (sigma * BOX) ** 2 / 2, dtype=torch.float64))
        generator = torch.Generator().manual_seed(2)
        found.append(accuracy.accuracies(particles, np.arange(30), truth, references, noise, 12, generator))
    # Evidence goes with (change / sigma)^2 for small changes.
    assert found[0][1] / found[1][1] == pytest.approx(4.0, rel=0.35)
    assert found[0][0] > 2.0 * found[1][0]
