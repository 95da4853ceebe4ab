"""How images are compared: what stands outside the mask, how much is kept, how fine it goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.fourier import to_fourier, to_real
from vitreous.core.masks import distance_grid
from vitreous.core.rotations import angular_distance
from vitreous.data.images import ArraySource
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import Poses
from vitreous.methods.refinement.preprocess import NoiseModel, noise_images
from vitreous.methods.refinement.sampling import in_plane_sampling
from vitreous.methods.refinement.statistics import new_noise, strict_shell

BOX, N = 32, 128


@pytest.fixture(scope="module")
def flat(make_flat):
    return make_flat(N, 0.6, 5)


def angular_error(flat, poses: Poses) -> float:
    return float(angular_distance(torch.from_numpy(poses.rotations), torch.from_numpy(flat.truth.rotations)).median())


def test_noise_that_fills_has_the_power_of_the_noise() -> None:
    sigma2 = torch.linspace(400.0, 50.0, BOX // 2 + 1, dtype=torch.float64)
    noise = NoiseModel(torch.stack([sigma2, 4 * sigma2]))
    images = noise_images(noise, np.repeat([0, 1], 64), np.arange(128), BOX)
    k = Coefficients.within(BOX, BOX // 2)
    power = 0.5 * k.shell_sums(k.gather(to_fourier(images)).abs().square()) / k.shell_counts()
    for group in (0, 1):
        measured = power[64 * group : 64 * group + 64].mean(0)
        assert torch.all((measured / noise.sigma2[group] - 1)[1:16].abs() < 0.15)
    again = noise_images(noise, np.array([1]), np.array([70]), BOX)
    # a particle's noise is its own, whatever the batch (a transform of another batch may round otherwise)
    torch.testing.assert_close(again[0], images[70], rtol=1e-5, atol=1e-5)


def test_the_noise_filled_mask_shows_the_whole_noise(flat) -> None:
    """With nothing outside, the estimate shrinks with the mask's area; filled with noise, it does not."""
    ratio = {}
    for zero_mask in (True, False):
        poses, statistics, _ = flat.one_pass(flat.particles, mask_radius=9.0, zero_mask=zero_mask)
        ratio[zero_mask] = float((new_noise(statistics, BOX, flat.noise).sigma2 / flat.noise.sigma2)[0, 10:15].mean())
        assert angular_error(flat, poses) < 4.0
    inside = float((distance_grid(BOX) < 11.5).float().mean())
    assert ratio[True] == pytest.approx(inside, abs=0.08)
    assert ratio[False] == pytest.approx(1.0, abs=0.12)  # the soft edge holds a mixture of both


def test_as_many_samples_are_kept_as_asked(flat) -> None:
    free = flat.one_pass(flat.particles, max_shell=3)[0].n_significant
    few = flat.one_pass(flat.particles, max_shell=3, max_significant=3)[0].n_significant
    assert np.median(free) > 10
    assert np.median(few) <= 4  # those that tie in the last bin of a 64th are kept together


def test_nothing_finer_than_the_strict_limit_is_compared(flat) -> None:
    """Images spoilt beyond shell 7 give the same poses, sums below that are the same, sums beyond are not left out."""
    k = Coefficients.within(BOX, BOX // 2)
    shells = k.scatter(k.shells.to(torch.complex64)).real
    images_ft = to_fourier(flat.particles.images[np.arange(N)])
    spoilt_ft = torch.where(shells > 7, 50 * images_ft.flip(0), images_ft)
    spoilt = replace(flat.particles, images=ArraySource(to_real(spoilt_ft, (BOX, BOX)).float(), 4.0))
    assert strict_shell(BOX * 4.0, 128 / 7.5) == 7
    clean = flat.one_pass(flat.particles, compared_shell=7)
    strict = flat.one_pass(spoilt, compared_shell=7)
    np.testing.assert_array_equal(clean[0].rotations, strict[0].rotations)
    assert angular_error(flat, flat.one_pass(spoilt)[0]) > 10 > angular_error(flat, strict[0])
    full = flat.one_pass(flat.particles, compared_shell=0)
    weights = [one[2].classes[0].weight for one in (full, clean)]
    assert float(weights[1].sum()) == pytest.approx(float(weights[0].sum()), rel=1e-3)


def test_each_oversampling_halves_the_step(flat) -> None:
    errors = []
    for oversampling in (0, 1, 2):
        grid = in_plane_sampling(24.0, 2.0, 1.0, oversampling=oversampling)
        assert grid.orientation_children == 2**oversampling
        assert grid.shift_children == 4**oversampling
        poses, statistics, _ = flat.one_pass(flat.particles, grid)
        assert float(statistics.row_weights.sum()) == pytest.approx(N)
        errors.append(angular_error(flat, poses))
    assert errors[0] == pytest.approx(6.0, abs=1.5)  # uniform within half a step of 24
    assert errors[0] > 1.6 * errors[1] > 1.6 * 1.4 * errors[2]
