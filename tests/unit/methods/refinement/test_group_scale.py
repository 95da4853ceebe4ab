"""Intensity scales of groups: what was put in comes out, at known poses and through a classification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import to_real
from vitreous.data.images import ArraySource
from vitreous.methods.refinement.classify_2d import Options2D, classify_2d
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.group_scale import new_scale, renewed_scale, scale_shell
from vitreous.methods.refinement.maximisation import AverageSums, maximise
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel
from vitreous.methods.refinement.references import ClassAverages
from vitreous.methods.refinement.sampling import in_plane, in_plane_sampling

BOX, PIXEL, N, NOISE = 32, 4.0, 240, 0.8
SCALE = np.array([0.6, 0.9, 1.1, 1.4])
OPTIONS = Options2D(
    1, 100.0, iterations=5, psi_step=12.0, offset_range=2.0, scale_correction=True, norm_correction=False
)


def reference() -> torch.Tensor:
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    blobs = ((5, -3, 1.5), (-4, 2, 2.0), (0, 6, 1.2), (-6, -6, 1.5))
    return sum(torch.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s * s)) for a, b, s in blobs).float()[None] * 2


@pytest.fixture(scope="module")
def particles() -> ParticleSet:
    generator = torch.Generator().manual_seed(3)
    u = 9000 + 6000 * torch.rand(N, generator=generator, dtype=torch.float64)
    groups = np.arange(N) % len(SCALE)
    blank = ParticleSet(
        ArraySource(torch.zeros(N, BOX, BOX), PIXEL),
        np.zeros(N, np.int64),
        (Microscope(300.0, 2.7, 0.1),),
        Defocus(u, u, 0 * u, 0 * u),
        scale_groups=groups,
    )
    coefficients = Coefficients.within(BOX, BOX // 2)
    rotations = in_plane(torch.rand(N, generator=generator, dtype=torch.float64) * 360)
    packed = ClassAverages(reference(), BOX // 2).slices(0, rotations, coefficients.coordinates)
    packed = packed * blank.with_scale(SCALE).ctf(np.arange(N), coefficients)
    images = to_real(coefficients.scatter(packed), (BOX, BOX)).float()
    return replace(blank, images=ArraySource(images + NOISE * torch.randn(images.shape, generator=generator), PIXEL))


def test_scales_are_measured_against_the_true_reference(particles: ParticleSet) -> None:
    sampling = in_plane_sampling(6.0, 2.0, 1.0)
    noise = NoiseModel(torch.full((1, BOX // 2 + 1), NOISE**2 * BOX**2 / 2, dtype=torch.float64))
    prior = Prior(noise, 1.0, torch.zeros(1, len(sampling.rotations)))
    scale = particles.first_scale()
    for _ in range(2):
        seen = particles.with_scale(scale)
        settings = Settings(12, 14.0, low_precision=False)
        expectation = Expectation(seen, ClassAverages(reference(), 12), sampling, prior, settings)
        _, statistics = maximise(expectation, np.arange(N), Poses.unknown(N), AverageSums(1, BOX, 12), scale_shell=10)
        scale = renewed_scale(statistics.products, seen)
    assert scale.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(scale, SCALE / SCALE.mean(), rtol=0.05)


def test_classification_finds_the_scales_and_needs_no_truth(particles: ParticleSet) -> None:
    state = list(classify_2d(particles, Poses.unknown(N), OPTIONS))[-1]
    np.testing.assert_allclose(state.scale, SCALE / SCALE.mean(), rtol=0.1)
    unasked = list(classify_2d(particles, Poses.unknown(N), replace(OPTIONS, scale_correction=False, iterations=1)))[-1]
    assert len(unasked.scale) == 0


def test_scales_are_bounded_normalised_and_kept_where_nothing_was_seen() -> None:
    products = torch.tensor([[2.0, 2.0], [0.001, 2.0], [40.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    groups = np.array([0, 0, 1, 2])
    scale = new_scale(products, np.array([1.0, 1.0, 1.0, 1.7]), groups)
    assert scale[3] == 1.7
    assert scale[1] / scale[0] == pytest.approx(0.2)
    assert scale[2] / scale[0] == pytest.approx(5.0)
    assert (scale[groups]).mean() == pytest.approx(1.0)


def test_shells_that_the_reference_does_not_hold_have_no_say() -> None:
    ssnr = torch.tensor([[0.0, 9.0, 8.0, 2.0, 9.0], [0.0, 9.0, 1.0, 5.0, 0.0]])
    assert scale_shell(ssnr) == 4
    assert scale_shell(ssnr[1:]) == 2
    assert scale_shell(torch.zeros(1, 5), at_least=3) == 3
