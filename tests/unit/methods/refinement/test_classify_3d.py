"""3D classification of made-up mixtures whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitreous.core.so3 import orientation_grid
from vitreous.core.symmetry import symmetric_distance
from vitreous.data.images import ArraySource
from vitreous.methods.refinement.classify_3d import classify_3d, start
from vitreous.methods.refinement.classify_3d_search import global_sampling
from vitreous.methods.refinement.classify_3d_state import (
    Classification3D,
    Options3D,
    state_from_arrays,
    state_to_arrays,
)
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.maximisation import MapSums, maximise
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.reconstruct import Reconstruction, complete, reconstruct
from vitreous.methods.refinement.references import Maps
from vitreous.methods.refinement.solvent import flatten_solvent
from vitreous.methods.refinement.statistics import new_noise, signal_power

BOX, PIXEL = 32, 4.0
FIXED = Options3D(3, 96.0, align=False, ini_high=24.0, iterations=6, absolute_grey=True)
ALIGNED = Options3D(
    2, 96.0, ini_high=24.0, iterations=4, healpix_order=1, offset_range=4.0, absolute_grey=True, low_precision=False
)
Mixture = tuple[Tensor, ParticleSet, Poses]


def kinds(n: int) -> Tensor:
    """n maps: the same lopsided core of six blobs, and one more blob of another place in each."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)

    def blob(centre: tuple[float, float, float], width: float = 1.8) -> Tensor:
        return torch.exp(-(grid - torch.tensor(centre)).square().sum(-1) / (2 * width**2))

    core = sum(
        weight * blob(centre)
        for weight, centre in [
            (1.0, (0, 0, 5)),
            (1.3, (0, 5, -2)),
            (0.9, (4, -4, 0)),
            (1.1, (-4, -1, -4)),
            (1, (3, 3, 3)),
        ]
    )
    extra = [(7.0, 2.0, -5.0), (-7.0, 5.0, 2.0), (-2.0, -8.0, 3.0)][:n]
    return torch.stack([core + 1.5 * blob(place, 2.2) for place in extra]).float()


@pytest.fixture(scope="module")
def mixture(simulate) -> Mixture:
    """Three kinds, 240 particles, signal-to-noise ratio 1/9 in the whole box."""
    densities = kinds(3)
    particles, truth = simulate(densities, 240, 3.0, torch.Generator().manual_seed(3))
    return densities, particles, truth


def purity(found: np.ndarray, truth: np.ndarray) -> float:
    table = np.zeros((found.max() + 1, truth.max() + 1))
    np.add.at(table, (found, truth), 1)
    return float(table.max(1).sum() / len(found))


def last(states) -> Classification3D:
    return list(states)[-1]


def test_classes_at_known_poses_from_one_map(mixture: Mixture) -> None:
    densities, particles, truth = mixture
    state = last(classify_3d(particles, truth, densities.mean(0, keepdim=True), FIXED))
    assert purity(state.poses.classes, truth.classes) > 0.95
    np.testing.assert_array_equal(state.poses.rotations, truth.rotations)
    np.testing.assert_array_equal(state.poses.origins, truth.origins)
    assert float(state.distribution.min()) > 0.25
    assert float(state.distribution.sum()) == pytest.approx(1.0)
    assert state.changes.rotations == pytest.approx(0.0, abs=1e-4)
    # each class's map is the truth of its kind and no other's
    for k in range(3):
        kind = np.bincount(truth.classes[state.poses.classes == k]).argmax()
        alike = [
            correlation(state.densities[k] - state.densities.mean(0), one - densities.mean(0)) for one in densities
        ]
        assert int(np.argmax(alike)) == kind and max(alike) > 0.8


def correlation(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_classes_and_poses_together(simulate) -> None:
    """Two kinds, 120 particles, from their own maps low-passed; signal-to-noise ratio 1/4.

    A coarser grid would not do: at 30 degrees the coarse pass misses poses, and one particle in six its class.
    """
    densities = kinds(2)
    particles, truth = simulate(densities, 120, 2.0, torch.Generator().manual_seed(4))
    options = replace(ALIGNED, healpix_order=2, iterations=3)
    state = last(classify_3d(particles, Poses.unknown(120), densities, options))
    assert (state.poses.classes == truth.classes).mean() > 0.9
    error = symmetric_distance(torch.from_numpy(state.poses.rotations), torch.from_numpy(truth.rotations), "C1")
    assert float(error.median()) < 9.0  # the fine step is 7.5 degrees
    assert np.median(np.abs(state.poses.origins - truth.origins)) < 0.7
    assert state.directions.shape == (2, 192)
    assert float(state.directions.sum()) == pytest.approx(120.0, rel=1e-4)


def test_first_iteration_draws_classes_and_later_ones_do_not(mixture: Mixture) -> None:
    densities, particles, truth = mixture
    states = classify_3d(particles, truth, densities[:1], FIXED)
    first = next(states)
    assert np.bincount(first.poses.classes, minlength=3).tolist() == [80, 80, 80]
    assert not first.alike
    assert not torch.allclose(first.densities[0], first.densities[1])
    # two of three change class by chance; drawn again they would go on doing so
    assert next(states).changes.classes > 0.1
    assert last(states).changes.classes < 0.05


@given(order=st.permutations(range(3)))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_permuting_references_permutes_classes(mixture: Mixture, order: list[int]) -> None:
    densities, particles, truth = mixture
    options = replace(FIXED, iterations=2)
    plain = last(classify_3d(particles, truth, densities, options))
    mixed = last(classify_3d(particles, truth, densities[order], options))
    np.testing.assert_array_equal(np.asarray(order)[mixed.poses.classes], plain.poses.classes)
    torch.testing.assert_close(mixed.distribution, plain.distribution[order])
    torch.testing.assert_close(mixed.densities, plain.densities[order], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(mixed.data_vs_prior, plain.data_vs_prior[order], rtol=1e-3, atol=1e-6)


def test_references_are_kept_inside_the_mask(mixture: Mixture) -> None:
    densities, particles, truth = mixture
    mask = torch.zeros(BOX, BOX, BOX)
    mask[BOX // 2 :] = 1.0
    options = replace(FIXED, iterations=1, mask=mask)
    assert not start(particles, truth, densities, options).densities[:, : BOX // 2].any()
    state = last(classify_3d(particles, truth, densities, options))
    assert not state.densities[:, : BOX // 2].any()
    assert state.densities[:, BOX // 2 :].any()


def test_symmetry_is_imposed_on_every_class(mixture: Mixture) -> None:
    densities, particles, truth = mixture
    state = last(classify_3d(particles, truth, densities, replace(FIXED, symmetry="C2", iterations=1)))
    mates = torch.roll(state.densities.flip(2, 3), (1, 1), (2, 3))  # (z, y, x) to (z, -y, -x)
    for density, mate in zip(state.densities, mates, strict=True):
        assert correlation(density, mate) > 0.99
    aligned = replace(ALIGNED, n_classes=3, symmetry="C2", iterations=1)
    found = last(classify_3d(particles, Poses.unknown(240), densities, aligned))
    # the grid holds half of the directions: views beyond it were never looked at
    assert 0 < int((found.directions.sum(0) > 0).sum()) <= 48 // 2 + 2


def test_one_class_is_plain_expectation_maximisation(simulate) -> None:
    """The first iteration with K = 1, written out again from its steps."""
    density = kinds(1)
    particles, _ = simulate(density, 60, 2.0, torch.Generator().manual_seed(6))
    options = replace(ALIGNED, n_classes=1, iterations=1, perturb=0.0)
    begin = start(particles, Poses.unknown(60), density, options)
    state = last(classify_3d(particles, Poses.unknown(60), density, options))
    shell = round(BOX * PIXEL / options.ini_high) + options.incr_size
    sampling, _ = global_sampling(options)
    coarse = min(shell, sampling.coarse_shell(BOX, PIXEL, options.diameter))
    how = Settings(shell, options.diameter / (2 * PIXEL), coarse, low_precision=False)
    flat = torch.zeros(1, len(sampling.rotations))
    prior = Prior(begin.noise, begin.sigma_offset, flat)
    sums = MapSums(1, BOX, shell)
    expectation = Expectation(particles, Maps([begin.densities[0]], shell), sampling, prior, how)
    poses, statistics = maximise(expectation, np.arange(60), begin.poses, sums)
    tau2 = signal_power(begin.densities)[0].clamp(min=1e-6)
    density = reconstruct(complete(sums.classes[0]), tau2, Reconstruction(tau2_fudge=options.tau2_fudge))
    np.testing.assert_array_equal(state.poses.rotations, poses.rotations)
    np.testing.assert_array_equal(state.poses.origins, poses.origins)
    torch.testing.assert_close(state.noise.sigma2, new_noise(statistics, BOX, begin.noise).sigma2)
    expected = flatten_solvent(density, PIXEL, options.diameter)
    assert correlation(state.densities[0], expected) > 0.99999


def test_noise_alone_stays_featureless(mixture: Mixture) -> None:
    """No class resolves more than the starting map was given, and none more than another."""
    densities, particles, _ = mixture
    generator = torch.Generator().manual_seed(8)
    noise = ArraySource(torch.randn(240, BOX, BOX, generator=generator), PIXEL)
    empty = replace(particles, images=noise)
    options = replace(ALIGNED, ini_high=60.0, iterations=5, absolute_grey=False)
    state = last(classify_3d(empty, Poses.unknown(240), densities.mean(0, keepdim=True), options))
    first_shell = round(BOX * PIXEL / 60.0)
    assert state.shell <= first_shell + 1
    # between the start's resolution and the last shell looked at there is a small part of what the noise gives a sum
    looked_at = slice(first_shell + 2, state.max_shell)
    power = signal_power(state.densities)
    assert float(state.sigma2[:, looked_at].min()) > 0
    assert float((power[:, looked_at] / state.sigma2[:, looked_at]).max()) < 0.1
    assert float((power[:, first_shell + 3 :] / power[:, 1:2]).max()) < 0.05


def test_a_resumed_run_is_the_same_to_the_bit(mixture: Mixture) -> None:
    densities, particles, truth = mixture
    states = list(classify_3d(particles, truth, densities[:1], replace(FIXED, iterations=4)))
    halfway = state_from_arrays(state_to_arrays(states[1]))
    again = list(classify_3d(particles, truth, densities[:1], replace(FIXED, iterations=4), halfway))
    assert [state.iteration for state in again] == [3, 4]
    assert torch.equal(again[-1].densities, states[-1].densities)
    np.testing.assert_array_equal(again[-1].poses.classes, states[-1].poses.classes)
    assert again[-1].changes == states[-1].changes


def test_local_searches_stay_near_and_sharpen(simulate) -> None:
    densities = kinds(2)
    particles, truth = simulate(densities, 120, 2.0, torch.Generator().manual_seed(9))
    grid = orientation_grid(2).rotations()
    nearest = torch.stack([grid[(grid - r).square().sum((1, 2)).argmin()] for r in torch.from_numpy(truth.rotations)])
    begin = replace(truth, rotations=nearest.numpy(), origins=np.round(truth.origins))
    options = replace(ALIGNED, healpix_order=3, sigma_angle=7.5, offset_range=2.0, iterations=3, ini_high=20.0)
    state = last(classify_3d(particles, begin, densities, options))
    there = torch.from_numpy(state.poses.rotations)
    assert (state.poses.classes == truth.classes).mean() > 0.9
    before = symmetric_distance(nearest, torch.from_numpy(truth.rotations), "C1")
    after = symmetric_distance(there, torch.from_numpy(truth.rotations), "C1")
    assert float(after.median()) < 0.8 * float(before.median())
    assert state.directions.shape == (2, 0)


def test_first_iteration_by_correlation_does_not_mind_grey_values(simulate) -> None:
    densities = kinds(2)
    particles, truth = simulate(densities, 80, 2.0, torch.Generator().manual_seed(10))
    options = replace(ALIGNED, first_by_correlation=True, healpix_order=2, iterations=1)
    plain = last(classify_3d(particles, Poses.unknown(80), densities, options))
    scaled = last(classify_3d(particles, Poses.unknown(80), torch.stack([50 * densities[0], densities[1]]), options))
    np.testing.assert_array_equal(plain.poses.rotations, scaled.poses.rotations)
    np.testing.assert_array_equal(plain.poses.classes, scaled.poses.classes)
    np.testing.assert_allclose(plain.poses.max_probability, 1.0)
    assert (plain.poses.classes == truth.classes).mean() > 0.8


def test_grey_values_are_fitted_unless_told_otherwise(mixture: Mixture) -> None:
    densities, particles, truth = mixture
    options = replace(FIXED, absolute_grey=False, ini_high=20.0)
    wrong = start(particles, truth, 30.0 * densities, options).densities
    right = start(particles, truth, densities, replace(options, absolute_grey=True)).densities
    scale = (wrong * right).sum((1, 2, 3)) / right.square().sum((1, 2, 3))
    assert torch.all((scale > 0.6) & (scale < 1.5)), scale
