"""Fixed poses and best correlations against the same written out in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.rotations import random_rotations
from vitreous.methods.refinement.candidates import Candidates
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.local_search import in_every_class
from vitreous.methods.refinement.particles import Poses
from vitreous.methods.refinement.preprocess import NoiseModel, prepare
from vitreous.methods.refinement.references import Maps
from vitreous.methods.refinement.sampling import Sampling, shift_grid
from vitreous.methods.refinement.single_samples import BestCorrelation, FixedPoses

BOX, N, SHELL, RADIUS = 24, 12, 9, 8.0


@pytest.fixture(scope="module")
def scene(simulate):
    generator = torch.Generator().manual_seed(2)
    smooth = torch.nn.functional.avg_pool3d(torch.randn(2, 1, BOX, BOX, BOX, generator=generator), 5, 1, 2)[:, 0]
    axis = torch.arange(BOX) - BOX // 2
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 64).float()
    densities = smooth * ball
    particles, truth = simulate(densities, N, 1.0, generator)
    images = particles.images[np.arange(N)]
    noise = NoiseModel(torch.full((1, BOX // 2 + 1), float(images.var()) * BOX**2 / 4, dtype=torch.float64))
    return densities, particles, truth, noise


def _gains(
    scene, rotations: torch.Tensor, origins: torch.Tensor, about: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cross terms and half powers (n, k) of particles at one pose and origin each, float64.

    about: origins that the images are centred and masked at; the rest is a phase (None: the origins themselves).
    """
    densities, particles, _, noise = scene
    maps = Maps(list(densities), SHELL)
    poses = replace(Poses.unknown(N), origins=origins.numpy() if about is None else about)
    coefficients = Coefficients.within(BOX, SHELL)
    images = prepare(particles, np.arange(N), poses, noise, coefficients, RADIUS, torch.device("cpu"))
    phases = coefficients.shift_phases(origins - torch.from_numpy(images.centres))
    moved = images.masked.data.to(torch.complex128) * phases
    cross, half = [], []
    for k in range(2):
        slices = maps.slices(k, rotations, coefficients.coordinates).to(torch.complex128)
        cross.append((moved * slices.conj()).real.sum(1))
        half.append((images.masked.half_power.double() * slices.abs().square()).sum(1))
    return torch.stack(cross, 1).numpy(), torch.stack(half, 1).numpy()


def test_fixed_poses_weigh_classes_as_bayes_does(scene) -> None:
    densities, particles, truth, noise = scene
    log_prior = torch.log(torch.tensor([[0.7], [0.3]])).expand(2, N)
    prior = Prior(noise, 3.0, log_prior)
    expectation = FixedPoses(
        particles, Maps(list(densities), SHELL), truth, prior, Settings(SHELL, RADIUS, adaptive_fraction=1.0)
    )
    cross, half = _gains(scene, torch.from_numpy(truth.rotations), torch.from_numpy(truth.origins))
    logits = cross - half + np.log([0.7, 0.3])
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    found = np.zeros((N, 2))
    for posterior in expectation.batches(np.arange(N), truth):
        s = posterior.samples
        np.add.at(found, (posterior.indices[s.images], posterior.row_classes[s.rows]), s.weights)
        np.testing.assert_array_equal(posterior.row_rotations[s.rows], posterior.indices[s.images])
        np.testing.assert_allclose(posterior.poses.origins, truth.origins[posterior.indices])
        np.testing.assert_allclose(posterior.poses.rotations, truth.rotations[posterior.indices])
    np.testing.assert_allclose(found, weights, atol=2e-4)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)


def test_fixed_poses_by_correlation_take_the_best_class(scene) -> None:
    densities, particles, truth, noise = scene
    prior = Prior(noise, 3.0, torch.zeros(2, N))
    maps = Maps([densities[0], 40.0 * densities[1]], SHELL)
    expectation = FixedPoses(particles, maps, truth, prior, Settings(SHELL, RADIUS), by_correlation=True)
    cross, half = _gains(scene, torch.from_numpy(truth.rotations), torch.from_numpy(truth.origins))
    best = (cross / np.sqrt(half)).argmax(1)
    (posterior,) = expectation.batches(np.arange(N), truth)
    np.testing.assert_array_equal(posterior.poses.classes, best)


def test_best_correlation_is_the_best_of_the_grid(scene, generator: torch.Generator) -> None:
    densities, particles, _, noise = scene
    n_rotations = 12
    rotations = random_rotations(n_rotations, generator)
    shifts, _ = shift_grid(2.0, 1.0, 0)
    sampling = Sampling(rotations, rotations, shifts, shifts, 10.0)
    prior = Prior(noise, 3.0, torch.zeros(2, n_rotations))
    how = Settings(SHELL, RADIUS, low_precision=False)
    expectation = BestCorrelation(particles, Maps(list(densities), SHELL), sampling, prior, how)
    at = Poses.unknown(N)
    (posterior,) = expectation.batches(np.arange(N), at)
    scores = np.zeros((N, 2, n_rotations, len(shifts)))
    for r in range(n_rotations):
        for t, shift in enumerate(shifts):
            cross, half = _gains(scene, rotations[r].expand(N, 3, 3), shift.expand(N, 2), np.zeros((N, 2)))
            scores[:, :, r, t] = cross / np.sqrt(half)
    classes, rest = np.divmod(scores.reshape(N, -1).argmax(1), n_rotations * len(shifts))
    np.testing.assert_array_equal(posterior.poses.classes, classes)
    np.testing.assert_allclose(posterior.poses.rotations, rotations.numpy()[rest // len(shifts)])
    np.testing.assert_allclose(posterior.poses.origins, shifts.numpy()[rest % len(shifts)])
    np.testing.assert_allclose(posterior.samples.weights, 1.0)


def test_strict_limit_compares_what_a_lower_resolution_compares(scene, generator: torch.Generator) -> None:
    """Same weights as with max_shell there, while the sums reach further."""
    densities, particles, _, noise = scene
    rotations = random_rotations(20, generator)
    shifts, _ = shift_grid(2.0, 1.0, 0)
    sampling = Sampling(rotations, rotations, shifts, shifts, 10.0)
    prior = Prior(noise, 3.0, torch.zeros(2, 20))
    maps = Maps(list(densities), SHELL)
    posteriors = []
    for how in (
        Settings(5, RADIUS, low_precision=False),
        Settings(SHELL, RADIUS, compared_shell=5, low_precision=False),
    ):
        (one,) = Expectation(particles, maps, sampling, prior, how).batches(np.arange(N), Poses.unknown(N))
        posteriors.append(one)
    low, strict = posteriors
    np.testing.assert_array_equal(low.poses.rotations, strict.poses.rotations)
    np.testing.assert_allclose(low.poses.max_probability, strict.poses.max_probability, rtol=1e-3)
    assert strict.references.shape[1] > low.references.shape[1]


def test_every_class_gets_the_same_candidates() -> None:
    candidates = Candidates(np.array([0, 2, 2, 3]), np.array([4, 1, 3]), np.array([-1.0, -2.0, -3.0], np.float32))
    both = in_every_class(candidates, 2, 5)
    assert both.starts.tolist() == [0, 4, 4, 6]
    assert both.rows.tolist() == [4, 1, 9, 6, 3, 8]
    assert both.log_prior.tolist() == [-1.0, -2.0, -1.0, -2.0, -3.0, -3.0]
