"""Intensity scales of groups: what was put in comes out, at known poses and through a classification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.methods.refinement.classify_2d import Options2D, classify_2d
from vitreous.methods.refinement.group_scale import new_scale, renewed_scale, scale_shell
from vitreous.methods.refinement.particles import Poses

N = 240
SCALE = np.array([0.6, 0.9, 1.1, 1.4])
OPTIONS = Options2D(
    1, 100.0, iterations=5, psi_step=12.0, offset_range=2.0, scale_correction=True, norm_correction=False
)


@pytest.fixture(scope="module")
def flat(make_flat):
    return make_flat(N, 0.7, 3, scale_groups=np.arange(N) % len(SCALE), scale=SCALE)


def test_scales_are_measured_against_the_true_reference(flat) -> None:
    scale = flat.particles.first_scale()
    for _ in range(2):
        seen = flat.particles.with_scale(scale)
        statistics = flat.one_pass(seen, scale_shell=10)[1]
        scale = renewed_scale(statistics.products, seen)
    assert scale.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(scale, SCALE / SCALE.mean(), rtol=0.05)


def test_classification_finds_the_scales_and_needs_no_truth(flat) -> None:
    particles = replace(flat.particles, scale=None)
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
