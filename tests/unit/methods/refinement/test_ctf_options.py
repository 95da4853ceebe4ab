"""What is done to images or said of their CTF: the same map, noise and poses whichever way a set is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.ctf import CtfTreatment, Defocus, Microscope
from vitreous.core.fourier import to_fourier, to_real
from vitreous.data.images import ArraySource
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.maximisation import AverageSums, maximise
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel, prepare
from vitreous.methods.refinement.references import ClassAverages
from vitreous.methods.refinement.sampling import in_plane, in_plane_sampling
from vitreous.methods.refinement.statistics import initial_noise, new_noise

BOX, PIXEL, N, NOISE = 32, 4.0, 160, 0.5
EVERYONE, ALL = np.arange(N), Coefficients.within(BOX, BOX // 2)


def reference() -> torch.Tensor:
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    blobs = ((5, -3, 1.2), (-4, 2, 1.5), (0, 6, 1.1), (-6, -6, 1.2))
    return sum(torch.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s * s)) for a, b, s in blobs).float()[None] * 2


@pytest.fixture(scope="module")
def plain() -> tuple[ParticleSet, Poses]:
    """Particles as the microscope gives them; B factors and scales of the CTF differ from particle to particle."""
    generator = torch.Generator().manual_seed(8)
    u = 9000 + 9000 * torch.rand(N, generator=generator, dtype=torch.float64)
    blank = ParticleSet(
        ArraySource(torch.zeros(N, BOX, BOX), PIXEL),
        np.zeros(N, np.int64),
        (Microscope(300.0, 2.7, 0.1),),
        Defocus(u, u - 500, 0 * u + 40, 0 * u),
        b_factor=100 * torch.rand(N, generator=generator, dtype=torch.float64),
        ctf_scale=0.8 + 0.4 * torch.rand(N, generator=generator, dtype=torch.float64),
    )
    rotations = in_plane(torch.rand(N, generator=generator, dtype=torch.float64) * 360)
    packed = ClassAverages(reference(), BOX // 2).slices(0, rotations, ALL.coordinates) * blank.ctf(EVERYONE, ALL)
    images = to_real(ALL.scatter(packed), (BOX, BOX)).float()
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    truth = replace(Poses.unknown(N), rotations=rotations.numpy())
    return replace(blank, images=ArraySource(images, PIXEL)), truth


def multiplied(particles: ParticleSet, factor: torch.Tensor) -> ArraySource:
    images_ft = to_fourier(particles.images[EVERYONE])
    factor_ft = ALL.scatter(factor.to(torch.complex64)).real
    return ArraySource(to_real(images_ft * factor_ft, (BOX, BOX)).float(), PIXEL)


def one_pass(particles: ParticleSet) -> tuple[torch.Tensor, Poses, torch.Tensor]:
    """Noise, poses and sums after one pass with the true reference."""
    sampling = in_plane_sampling(12.0, 2.0, 1.0)
    noise = NoiseModel(torch.full((1, BOX // 2 + 1), NOISE**2 * BOX**2 / 2, dtype=torch.float64))
    prior = Prior(noise, 1.0, torch.zeros(1, len(sampling.rotations)))
    # a mask wider than the box: what the CTF delocalises is not cut off
    expectation = Expectation(
        particles, ClassAverages(reference(), 13), sampling, prior, Settings(13, 40.0, low_precision=False)
    )
    sums = AverageSums(1, BOX, 13)
    poses, statistics = maximise(expectation, EVERYONE, Poses.unknown(N), sums)
    return new_noise(statistics, BOX, noise).sigma2[0], poses, sums.classes[0].data


def test_envelopes_are_those_of_each_particle(plain: tuple[ParticleSet, Poses]) -> None:
    particles = plain[0]
    assert particles.b_factor is not None
    assert particles.ctf_scale is not None
    without = replace(particles, b_factor=None, ctf_scale=None)
    ratio = particles.ctf(EVERYONE[5:6], ALL) / without.ctf(EVERYONE[5:6], ALL)
    k2 = (ALL.coordinates / (BOX * PIXEL)).square().sum(1)
    expected = particles.ctf_scale[5] * torch.exp(-particles.b_factor[5] * k2 / 4)
    torch.testing.assert_close(ratio[0], expected.float(), rtol=1e-4, atol=1e-5)


def test_premultiplied_images_say_the_same(plain: tuple[ParticleSet, Poses]) -> None:
    particles, truth = plain
    done = replace(particles, images=multiplied(particles, particles.transfer(EVERYONE, ALL)), premultiplied=(True,))
    noise = NoiseModel(torch.ones(1, BOX // 2 + 1, dtype=torch.float64))
    low = Coefficients.within(BOX, 12)
    images = [
        prepare(one, EVERYONE, Poses.unknown(N), noise, low, 40.0, torch.device("cpu")) for one in (particles, done)
    ]
    torch.testing.assert_close(images[0].masked.data, images[1].masked.data, rtol=1e-3, atol=5e-3)
    assert torch.equal(images[0].masked.half_power, images[1].masked.half_power)
    (noise_1, poses_1, sums_1), (noise_2, poses_2, sums_2) = one_pass(particles), one_pass(done)
    assert (np.abs(poses_1.rotations - poses_2.rotations).max((1, 2)) < 1e-9).mean() > 0.98
    assert float((sums_1 - sums_2).norm() / sums_1.norm()) < 0.01
    true_noise = NOISE**2 * BOX**2 / 2
    for found in (noise_1, noise_2):
        assert torch.all((found[2:14] / true_noise - 1).abs() < 0.15), found / true_noise
    start = initial_noise(done, truth, 40.0, torch.Generator().manual_seed(1)).sigma2[0, 8:15] / true_noise
    assert torch.all((start > 0.8) & (start < 1.4)), start


def test_flipped_images_say_the_same(plain: tuple[ParticleSet, Poses]) -> None:
    particles = plain[0]
    sign = particles.transfer(EVERYONE, ALL).sign()
    flipped = replace(particles, images=multiplied(particles, sign), treatment=CtfTreatment(phase_flipped=True))
    (noise_1, poses_1, sums_1), (noise_2, poses_2, sums_2) = one_pass(particles), one_pass(flipped)
    assert (np.abs(poses_1.rotations - poses_2.rotations).max((1, 2)) < 1e-9).mean() > 0.98
    assert float((sums_1 - sums_2).norm() / sums_1.norm()) < 0.01
    torch.testing.assert_close(noise_1[:14], noise_2[:14], rtol=0.01, atol=0.0)
