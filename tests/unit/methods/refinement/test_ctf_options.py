"""What is done to images or said of their CTF: the same sums, noise and poses whichever way a set is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.ctf import CtfTreatment
from vitreous.core.fourier import to_fourier, to_real
from vitreous.data.images import ArraySource
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel, prepare
from vitreous.methods.refinement.statistics import initial_noise, new_noise

BOX, PIXEL, N = 32, 4.0, 160
EVERYONE, ALL = np.arange(N), Coefficients.within(BOX, BOX // 2)


@pytest.fixture(scope="module")
def flat(make_flat):
    """Particles as the microscope gives them; B factors and scales of the CTF differ from particle to particle."""
    random = torch.rand(2, N, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return make_flat(N, 0.5, 8, b_factor=100 * random[0], ctf_scale=0.8 + 0.4 * random[1])


def multiplied(particles: ParticleSet, factor: torch.Tensor) -> ArraySource:
    images_ft = to_fourier(particles.images[EVERYONE])
    factor_ft = ALL.scatter(factor.to(torch.complex64)).real
    return ArraySource(to_real(images_ft * factor_ft, (BOX, BOX)).float(), PIXEL)


def assert_same_pass(flat, first: ParticleSet, second: ParticleSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses and sums are the same; the noise of both."""
    passes = [flat.one_pass(one) for one in (first, second)]
    (poses_1, _, sums_1), (poses_2, _, sums_2) = passes
    assert (np.abs(poses_1.rotations - poses_2.rotations).max((1, 2)) < 1e-9).mean() > 0.98
    a, b = sums_1.classes[0].data, sums_2.classes[0].data
    assert float((a - b).norm() / a.norm()) < 0.01
    found = [new_noise(statistics, BOX, flat.noise).sigma2[0] for _, statistics, _ in passes]
    return found[0], found[1]


def test_envelopes_are_those_of_each_particle(flat) -> None:
    particles = flat.particles
    without = replace(particles, b_factor=None, ctf_scale=None)
    ratio = particles.ctf(EVERYONE[5:6], ALL) / without.ctf(EVERYONE[5:6], ALL)
    k2 = (ALL.coordinates / (BOX * PIXEL)).square().sum(1)
    expected = particles.ctf_scale[5] * torch.exp(-particles.b_factor[5] * k2 / 4)
    torch.testing.assert_close(ratio[0], expected.float(), rtol=1e-4, atol=1e-5)


def test_premultiplied_images_say_the_same(flat) -> None:
    particles = flat.particles
    images = multiplied(particles, particles.transfer(EVERYONE, ALL))
    done = replace(particles, images=images, premultiplied=(True,))
    unit = NoiseModel(torch.ones(1, BOX // 2 + 1, dtype=torch.float64))
    low, start = Coefficients.within(BOX, 12), Poses.unknown(N)
    plain, prepared = (
        prepare(one, EVERYONE, start, unit, low, 40.0, torch.device("cpu")).masked for one in (particles, done)
    )
    torch.testing.assert_close(plain.data, prepared.data, rtol=1e-3, atol=5e-3)
    assert torch.equal(plain.half_power, prepared.half_power)
    true = flat.noise.sigma2[0]
    for found in assert_same_pass(flat, particles, done):
        assert torch.all((found / true - 1)[2:14].abs() < 0.15), found / true
    first = initial_noise(done, flat.truth, 40.0, torch.Generator().manual_seed(1)).sigma2[0] / true
    assert torch.all((first[8:15] > 0.8) & (first[8:15] < 1.4)), first


def test_flipped_images_say_the_same(flat) -> None:
    sign = flat.particles.transfer(EVERYONE, ALL).sign()
    treatment = CtfTreatment(phase_flipped=True)
    flipped = replace(flat.particles, images=multiplied(flat.particles, sign), treatment=treatment)
    first, second = assert_same_pass(flat, flat.particles, flipped)
    torch.testing.assert_close(first[:14], second[:14], rtol=0.01, atol=0.0)
