"""One pass of expectation and maximisation over made-up particles whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import to_fourier, to_real
from vitreous.core.rotations import angular_distance, random_rotations
from vitreous.data.images import ArraySource
from vitreous.methods.refinement.candidates import Candidates
from vitreous.methods.refinement.class_average import average
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.maximisation import AverageSums, MapSums, Statistics, maximise
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel
from vitreous.methods.refinement.references import ClassAverages, Maps, References
from vitreous.methods.refinement.sampling import Sampling, in_plane, in_plane_sampling, shift_grid
from vitreous.methods.refinement.statistics import new_noise, signal_power

BOX, PIXEL = 32, 4.0
MICROSCOPE = Microscope(300.0, 2.7, 0.1)


def _blobs(generator: torch.Generator, ndim: int) -> Tensor:
    """A lopsided sum of Gaussian blobs within a third of the box."""
    axes = [torch.arange(BOX, dtype=torch.float64) - BOX // 2] * ndim
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    centres = (torch.rand(6, ndim, generator=generator, dtype=torch.float64) - 0.5) * BOX * 0.4
    total = torch.zeros((BOX,) * ndim, dtype=torch.float64)
    for i, centre in enumerate(centres):
        total += (1.0 + 0.3 * i) * torch.exp(-(grid - centre).square().sum(-1) / (2 * 1.5**2))
    return total.to(torch.float32)


def _particles(
    references: References, poses: Poses, noise: float, generator: torch.Generator
) -> tuple[ParticleSet, NoiseModel]:
    n = len(poses)
    u = 10000.0 + 8000.0 * torch.rand(n, generator=generator, dtype=torch.float64)
    defocus = Defocus(u, u - 300.0, torch.full_like(u, 20.0), torch.zeros_like(u))
    groups = np.zeros(n, np.int64)
    blank = ParticleSet(ArraySource(torch.zeros(n, BOX, BOX), PIXEL), groups, (MICROSCOPE,), defocus)
    coefficients = Coefficients.within(BOX, BOX // 2)
    ctf = blank.ctf(np.arange(n), coefficients)
    packed = torch.stack(
        [
            references.slices(int(k), torch.from_numpy(r[None]), coefficients.coordinates)[0]
            for k, r in zip(poses.classes, poses.rotations, strict=True)
        ]
    )
    packed = packed * ctf * coefficients.shift_phases(torch.from_numpy(-poses.origins))
    images = to_real(coefficients.scatter(packed), (BOX, BOX)).to(torch.float32)
    images = images + noise * torch.randn(images.shape, generator=generator)
    sigma2 = torch.full((1, BOX // 2 + 1), noise**2 * BOX**2 / 2, dtype=torch.float64)
    particles = ParticleSet(ArraySource(images, PIXEL), groups, (MICROSCOPE,), defocus)
    return particles, NoiseModel(sigma2)


def _true_poses(rotations: Tensor, classes: np.ndarray, generator: torch.Generator) -> Poses:
    n = len(classes)
    origins = (torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5) * 6
    return replace(Poses.unknown(n), classes=classes, rotations=rotations.numpy(), origins=origins.numpy())


def _uniform_prior(noise: NoiseModel, n_classes: int, sampling: Sampling) -> Prior:
    n = n_classes * len(sampling.rotations)
    return Prior(noise, 3.0, torch.full((n_classes, len(sampling.rotations)), -math.log(n)))


@pytest.fixture(scope="module")
def two_classes() -> tuple[Tensor, ParticleSet, NoiseModel, Poses]:
    generator = torch.Generator().manual_seed(11)
    images = torch.stack([_blobs(generator, 2), _blobs(generator, 2)])
    n = 120
    psi = torch.rand(n, generator=generator, dtype=torch.float64) * 360
    truth = _true_poses(in_plane(psi), np.arange(n) % 2, generator)
    particles, noise = _particles(ClassAverages(images, BOX // 2), truth, 0.8, generator)
    return images, particles, noise, truth


def _run(
    references: References,
    particles: ParticleSet,
    noise: NoiseModel,
    sampling: Sampling,
    sums: AverageSums | MapSums,
    **settings: int,
) -> tuple[Poses, Statistics]:
    prior = _uniform_prior(noise, references.n_classes, sampling)
    options = Settings(**{"max_shell": 12, "mask_radius": 12.0, "low_precision": False, **settings})  # type: ignore[arg-type]
    expectation = Expectation(particles, references, sampling, prior, options)
    return maximise(expectation, np.arange(len(particles)), Poses.unknown(len(particles)), sums)


def test_2d_pass_finds_class_angle_and_shift(two_classes: tuple[Tensor, ParticleSet, NoiseModel, Poses]) -> None:
    images, particles, noise, truth = two_classes
    sampling = in_plane_sampling(12.0, 5.0, 2.0)
    found, statistics = _run(ClassAverages(images, BOX // 2), particles, noise, sampling, AverageSums(2, BOX, 14))
    assert (found.classes == truth.classes).mean() > 0.98
    right = found.classes == truth.classes
    error = angular_distance(torch.from_numpy(found.rotations[right]), torch.from_numpy(truth.rotations[right]))
    assert float(error.median()) < 3.0  # fine step 6 degrees: half of it is 3
    assert np.median(np.abs(found.origins - truth.origins)) < 0.5
    assert statistics.n_particles == len(particles)
    torch.testing.assert_close(statistics.row_weights.sum(), torch.tensor(float(len(particles)), dtype=torch.float64))


def test_noise_estimate_is_the_noise_put_in(two_classes: tuple[Tensor, ParticleSet, NoiseModel, Poses]) -> None:
    images, particles, noise, _ = two_classes
    sampling = in_plane_sampling(12.0, 5.0, 2.0)
    # a mask wider than the box: the whole noise is seen
    _, statistics = _run(
        ClassAverages(images, BOX // 2), particles, noise, sampling, AverageSums(2, BOX, 14), mask_radius=40
    )
    measured = new_noise(statistics, BOX, noise).sigma2
    ratio = measured[0, 2:13] / noise.sigma2[0, 2:13]
    assert torch.all((ratio > 0.8) & (ratio < 1.25)), ratio


def test_averages_of_a_pass_are_the_references(two_classes: tuple[Tensor, ParticleSet, NoiseModel, Poses]) -> None:
    images, particles, noise, _ = two_classes
    sampling = in_plane_sampling(6.0, 5.0, 1.0)
    sums = AverageSums(2, BOX, 14)
    _run(ClassAverages(images, BOX // 2), particles, noise, sampling, sums)
    tau2 = signal_power(images)
    for k in range(2):
        solved = average(sums.classes[k], tau2[k], 1.0)
        low = Coefficients.within(BOX, 8)
        a, b = low.gather(to_fourier(solved.image))[1:], low.gather(to_fourier(images[k]))[1:]
        correlation = (a * b.conj()).real.sum() / (a.norm() * b.norm())
        assert float(correlation) > 0.95
        # a Wiener average is not larger than the truth, and near it where the signal is strong
        scale = (a * b.conj()).real.sum() / b.abs().square().sum()
        assert 0.75 < float(scale) < 1.1
        assert float(solved.data_vs_prior[2]) > 1.0


@pytest.mark.parametrize("smaller", [{"memory": 8_000_000}, {"pool": 7}])
def test_batches_do_not_change_the_result(
    two_classes: tuple[Tensor, ParticleSet, NoiseModel, Poses], smaller: dict[str, int]
) -> None:
    images, particles, noise, _ = two_classes
    sampling = in_plane_sampling(20.0, 4.0, 2.0)
    references = ClassAverages(images, BOX // 2)
    large, small = AverageSums(2, BOX, 14), AverageSums(2, BOX, 14)
    whole, a = _run(references, particles, noise, sampling, large)
    parts, b = _run(references, particles, noise, sampling, small, **smaller)
    np.testing.assert_allclose(whole.origins, parts.origins)
    torch.testing.assert_close(a.residual, b.residual, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(large.classes[0].data, small.classes[0].data, rtol=1e-3, atol=1e-2)


def test_3d_pass_with_candidates_recovers_poses(generator: torch.Generator) -> None:
    """Local searches: each particle is shown ten orientations of which one is its own."""
    volume = _blobs(generator, 3)
    n, each = 20, 10
    rotations = random_rotations(n * each, generator)
    truth = _true_poses(rotations[::each], np.zeros(n, np.int64), generator)
    references = Maps([volume], BOX // 2)
    particles, noise = _particles(references, truth, 2.0, generator)
    coarse, fine = shift_grid(4.0, 1.0, 0)
    sampling = Sampling(rotations, rotations, coarse, fine, 5.0)
    candidates = Candidates(np.arange(n + 1) * each, np.arange(n * each), np.zeros(n * each, np.float32))
    prior = Prior(noise, 3.0, torch.zeros(1, n * each), candidates=candidates)
    expectation = Expectation(particles, references, sampling, prior, Settings(12, 13.0))
    sums = MapSums(1, BOX, 14)
    found, _ = maximise(expectation, np.arange(n), Poses.unknown(n), sums)
    np.testing.assert_allclose(found.rotations, truth.rotations)
    assert np.abs(found.origins - truth.origins).max() < 1.0
    # a prior that forbids the truth to every second particle, and to these alone
    forbidden = np.zeros(n * each, np.float32)
    forbidden[:: 2 * each] = -1e4
    prior = replace(prior, candidates=replace(candidates, log_prior=forbidden))
    elsewhere, _ = maximise(
        Expectation(particles, references, sampling, prior, Settings(12, 13.0, memory=4_000_000)),
        np.arange(n),
        Poses.unknown(n),
        MapSums(1, BOX, 14),
    )
    same = np.abs(elsewhere.rotations - truth.rotations).max((1, 2)) < 1e-9
    np.testing.assert_array_equal(same, np.arange(n) % 2 == 1)
    assert float(sums.classes[0].weight.sum()) > 0
