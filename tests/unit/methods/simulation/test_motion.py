from __future__ import annotations

import numpy as np
import torch

from vitreous.core.fourier import lowpass, shift_images, to_fourier, to_real
from vitreous.data.motion import Motion, displacement, grid_points
from vitreous.methods.simulation.motion import MotionSettings, displacement_model, no_motion, random_motion
from vitreous.methods.simulation.warp import spline_prefilter, warp

SHAPE = (96, 128)


def field(shape=(160, 192), resolution=3.5, seed=0):
    """A smooth periodic canvas and its spline coefficients."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    image_ft = to_fourier(noise) * lowpass(shape, 1.0, resolution).to(torch.float32)
    image = to_real(image_ft, shape)
    coefficients = torch.fft.irfft2(torch.fft.rfft2(image) / spline_prefilter(shape), s=shape)
    return image, coefficients.numpy()


def test_nothing_moves_without_motion():
    image, coefficients = field()
    out = warp(coefficients, SHAPE, (32, 32), np.zeros((2, 6)))
    assert np.abs(out - image[32:128, 32:160].numpy()).max() < 1e-5


def test_displacement_moves_content_forward():
    image, coefficients = field()
    model = np.zeros((2, 6))
    model[:, 0] = 3.3, -2.6  # x, y
    out = warp(coefficients, SHAPE, (32, 32), model)
    moved = shift_images(image, torch.tensor([-2.6, 3.3]))[32:128, 32:160].numpy()
    assert np.abs(out - moved).max() < 0.01 * moved.std()


def test_local_motion_moves_a_spot_to_where_the_model_says():
    rng = np.random.default_rng(5)
    motion = random_motion(np.arange(12) * 2.0, SHAPE, 1.0, MotionSettings(drift=6.0, local=3.0), rng)
    frame, (x, y) = 9, (40, 70)
    canvas = torch.zeros(160, 192)
    yy, xx = torch.meshgrid(torch.arange(160.0), torch.arange(192.0), indexing="ij")
    canvas += torch.exp(-0.5 * ((yy - 32 - y) ** 2 + (xx - 32 - x) ** 2) / 9.0)
    coefficients = torch.fft.irfft2(torch.fft.rfft2(canvas) / spline_prefilter((160, 192)), s=(160, 192)).numpy()
    out = warp(coefficients, SHAPE, (32, 32), displacement_model(motion, frame))
    found = np.array([(out.sum(0) * np.arange(128)).sum(), (out.sum(1) * np.arange(96)).sum()]) / out.sum()
    expected = displacement(motion, frame, float(x), float(y))
    # The field stretches over the spot itself by its gradient: a few hundredths of a pixel.
    assert np.abs(found - np.array([x, y]) - expected).max() < 0.1
    assert np.abs(expected).max() > 1.0


def test_motion_starts_fast_and_has_the_size_asked_for():
    exposures = np.arange(20) * 2.0
    tracks, sizes = [], []
    points = grid_points(SHAPE, 9)
    for seed in range(20):
        motion = random_motion(
            exposures, SHAPE, 1.5, MotionSettings(drift=12.0, local=3.0), np.random.default_rng(seed)
        )
        assert np.array_equal(motion.global_shifts[0], [0, 0])
        tracks.append(np.linalg.norm(np.diff(motion.global_shifts, axis=0), axis=1) * 1.5)
        beside = Motion(SHAPE, np.zeros((20, 2)), motion.coefficients)
        sizes.append(np.sqrt((displacement(beside, 19, points[:, 0], points[:, 1]) ** 2).sum(1).mean()) * 1.5)
    tracks = np.array(tracks)
    assert abs(tracks.sum(1).mean() - 12.0) < 1.5
    assert tracks[:, :2].mean() > 2.5 * tracks[:, 10:].mean()
    assert abs(np.mean(sizes) - 3.0) < 0.6


def test_no_motion_is_no_displacement():
    assert not displacement_model(no_motion(4, SHAPE), 3).any()
