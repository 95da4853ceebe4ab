from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.dose import dose_weights
from vitreous.core.fourier import radius_grid
from vitreous.data.motion import Motion, motion_error
from vitreous.methods.motion.correct import MotionOptions, correct_movie, memory_needed
from vitreous.methods.motion.correction import SumOptions, binned_shape, sum_frames
from vitreous.methods.motion.exposure import Exposure
from vitreous.methods.motion.frames import ArrayFrames, PreparedFrames
from vitreous.methods.motion.local_alignment import automatic_patches
from vitreous.runtime.workspace import Workspace


def correct(frames, *, patches=(1, 1), dose=2.0, gain=None, keep=True, **sums):
    options = MotionOptions(Exposure(1.0, 300.0, dose), SumOptions(**sums), patches=patches, keep_frames=keep)
    return correct_movie(ArrayFrames(frames), options, gain=gain)


def test_drift_is_found_to_a_fraction_of_a_pixel(movie, drift):
    made = movie(512, 12, drift=drift(12))
    got = correct(made.frames)
    assert motion_error(got.motion, made.true, made.points)[0] < 0.15
    assert got.motion.global_shifts[0].tolist() == [0.0, 0.0]
    # the stated uncertainty is of the size of the error
    assert 0.01 < got.uncertainty < 0.15


def test_large_drift_is_found(movie, drift):
    made = movie(512, 12, drift=drift(12, 3.5))
    assert np.abs(made.true).max() > 35
    assert motion_error(correct(made.frames).motion, made.true, made.points)[0] < 0.3


def test_local_motion_is_found(movie, drift):
    made = movie(640, 12, drift=drift(12), local=5.0)
    got = correct(made.frames, patches=(4, 4))
    assert got.motion.coefficients is not None
    assert motion_error(got.motion, made.true, made.points)[0] < 0.3
    # and the whole frame alone would have been far off
    alone = Motion(got.motion.shape, got.motion.global_shifts)
    assert motion_error(alone, made.true, made.points)[0] > 1.0


def test_what_stands_still_stays_still(movie):
    made = movie(512, 10)
    got = correct(made.frames, patches=(3, 3))
    assert motion_error(got.motion, made.true, made.points)[0] < 0.1
    assert got.motion.coefficients is None
    assert got.local is not None
    assert "no significant local motion" in got.local.reason


def test_pure_noise_does_not_run_away():
    frames = np.random.default_rng(3).poisson(1.0, (8, 384, 384)).astype(np.uint8)
    got = correct(frames, patches=(3, 3))
    assert got.motion.coefficients is None
    assert np.isfinite(got.motion.global_shifts).all()
    assert got.uncertainty > 0.3  # and it says that it knows little


def test_residual_fixed_pattern_does_not_pin_the_frames(movie, drift):
    rng = np.random.default_rng(9)
    pattern = 1.0 + 0.02 * rng.standard_normal((512, 512))
    pattern[:, rng.integers(0, 512, 20)] *= 1.05  # columns of another gain
    made = movie(512, 12, drift=drift(12), gain=pattern)
    assert motion_error(correct(made.frames).motion, made.true, made.points)[0] < 0.2


def test_a_strong_pattern_is_taken_out_by_the_gain_reference(movie, drift):
    pattern = 1.0 + 0.25 * np.clip(np.random.default_rng(9).standard_normal((512, 512)), -2.5, 2.5)
    made = movie(512, 12, drift=drift(12), gain=pattern)
    gain = torch.from_numpy(1.0 / pattern).float()
    assert motion_error(correct(made.frames, gain=gain).motion, made.true, made.points)[0] < 0.2


def test_hot_pixels_do_not_pin_the_frames(movie, drift):
    made = movie(512, 12, drift=drift(12))
    rng = np.random.default_rng(4)
    hot = rng.integers(0, 512, (300, 2))
    made.frames[:, hot[:, 0], hot[:, 1]] = 60
    got = correct(made.frames)
    assert motion_error(got.motion, made.true, made.points)[0] < 0.2
    assert len(np.unique(hot, axis=0)) <= len(got.motion.hot_pixels) < 330


def test_grouped_frames_follow_a_steady_drift(movie):
    steady = np.arange(12)[:, None] * np.array([0.8, -0.5])
    made = movie(512, 12, drift=steady)
    options = MotionOptions(Exposure(1.0, 300.0, 2.0), patches=(1, 1), group=3)
    got = correct_movie(ArrayFrames(made.frames), options)
    assert motion_error(got.motion, made.true, made.points)[0] < 0.2


def test_low_dose_movies_align(movie, drift):
    made = movie(768, 24, dose=0.5, drift=drift(24, 0.4))
    assert motion_error(correct(made.frames).motion, made.true, made.points)[0] < 0.3


def test_the_sum_is_as_sharp_as_the_specimen(movie, drift):
    made = movie(512, 12, dose=40.0, contrast=0.05, b_factor=8.0, drift=drift(12), local=4.0)
    plain = correct(made.frames, patches=(3, 3), weighted=False).sums.plain
    assert plain is not None
    inside = slice(32, -32)
    a = torch.from_numpy(made.specimen).float()[inside, inside]
    b = plain[inside, inside]
    fa, fb = torch.fft.rfft2(a - a.mean()), torch.fft.rfft2(b - b.mean())
    k = radius_grid(tuple(a.shape))
    for low, high in ((0.02, 0.15), (0.15, 0.3), (0.3, 0.4)):
        ring = (k >= low) & (k < high)
        cross = (fa[ring] * fb[ring].conj()).real.sum()
        transfer = cross / fa[ring].abs().square().sum() / (12 * 40.0)
        assert transfer > 0.8, (low, high)


def test_dose_weighted_sum_is_the_weights_times_the_frames():
    rng = np.random.default_rng(0)
    frames = rng.poisson(3.0, (5, 64, 48)).astype(np.float32)
    prepared = PreparedFrames(ArrayFrames(frames), find_defects=False)
    exposure = Exposure(1.3, 200.0, 3.0)
    motion = Motion((64, 48), np.zeros((5, 2)))
    got = sum_frames(prepared, motion, exposure, SumOptions(spectrum_box=0, plain=True))
    k = radius_grid((64, 48), 1.3)
    weights = dose_weights(k, torch.arange(1, 6).double() * 3.0, 200.0)
    wanted = torch.fft.irfft2((torch.fft.rfft2(torch.from_numpy(frames).double()) * weights).sum(0), s=(64, 48))
    assert torch.allclose(got.weighted.double(), wanted, atol=1e-4)
    assert torch.allclose(got.plain, torch.from_numpy(frames.sum(0)), atol=1e-4)


def test_relions_signs_undo_a_known_shift():
    image = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    frames = np.stack([image, np.roll(image, (2, 3), axis=(0, 1))])  # moved by +3 in x, +2 in y
    motion = Motion((64, 64), np.array([[0.0, 0.0], [-3.0, -2.0]]))
    prepared = PreparedFrames(ArrayFrames(frames), find_defects=False)
    got = sum_frames(prepared, motion, Exposure(1.0), SumOptions(weighted=False, spectrum_box=0))
    assert torch.allclose(got.plain, torch.from_numpy(2 * image), atol=1e-4)


def test_binning_keeps_the_mean_and_the_field():
    frames = np.random.default_rng(0).poisson(3.0, (3, 96, 80)).astype(np.uint8)
    got = correct(frames, binning=2.0)
    assert got.sums.weighted.shape == (48, 40)
    assert got.sums.pixel_size == pytest.approx(2.0)
    assert got.sums.weighted.mean() == pytest.approx(frames.mean() * np.sqrt(3), rel=1e-4)
    assert binned_shape((3838, 3710), 1.5) == (2558, 2474)
    with pytest.raises(ValueError, match="binning"):
        binned_shape((64, 64), 0.5)


def test_power_spectrum_of_a_grating_peaks_at_its_frequency():
    y, x = np.mgrid[0:512, 0:400]
    wave = np.cos(2 * np.pi * (x * 0.1 + y * 0.05)).astype(np.float32)
    frames = np.stack([wave + 3] * 4)
    prepared = PreparedFrames(ArrayFrames(frames), find_defects=False)
    motion = Motion((512, 400), np.zeros((4, 2)))
    got = sum_frames(prepared, motion, Exposure(1.0, 300.0, 2.0), SumOptions(spectrum_box=256))
    spectrum = got.spectrum
    assert spectrum.shape == (256, 256)
    assert got.spectrum_pixel_size == 1.4
    spectrum[128, 128] = 0
    row, column = divmod(int(spectrum.argmax()), 256)
    extent = 256 * 1.4
    assert {(row - 128, column - 128), (128 - row, 128 - column)} & {(round(0.05 * extent), round(0.1 * extent))}
    mirrored = spectrum[1:, 1:].flip(0, 1)
    assert torch.allclose(spectrum[1:, 1:], mirrored)


def test_same_seed_same_bits_and_memory_does_not_matter(movie, drift):
    made = movie(256, 6, drift=drift(6))
    made.frames[:, 7, 9] = 100
    first, second = correct(made.frames), correct(made.frames, keep=False)
    assert torch.equal(first.sums.weighted, second.sums.weighted)


def test_one_frame_is_only_copied():
    frames = np.random.default_rng(0).poisson(30.0, (1, 64, 64)).astype(np.uint8)
    got = correct(frames, weighted=False)
    assert torch.allclose(got.sums.plain, torch.from_numpy(frames[0]).float(), atol=1e-3)


def test_plans():
    assert automatic_patches((4096, 4096)) == (5, 5)
    assert automatic_patches((512, 512)) == (5, 5)
    assert automatic_patches((350, 512)) == (5, 3)
    assert automatic_patches((256, 4096)) == (1, 1)
    held, read = (memory_needed((4096, 4096), 40, 150.0, keep_frames=keep) for keep in (True, False))
    assert 3e9 < held < 7e9
    assert read < held - 1.8e9  # a dozen frames are held at a time


def test_a_patch_that_moves_by_itself_is_left_out(movie, drift):
    """A corner that stays behind (a crack, carbon) would bend the model for all of the field."""
    made = movie(640, 12, drift=drift(12), local=5.0)
    other = movie(640, 12, drift=np.linspace(0, 1, 12)[:, None] * [9.0, -12.0], contrast=0.2, seed=5)
    frames = made.frames.copy()
    frames[:, :160, :160] = other.frames[:, :160, :160]
    got = correct(frames, patches=(4, 4))
    assert got.local is not None
    rejected = got.local.all_centres[got.local.rejected]
    assert len(rejected) == 1
    assert np.allclose(rejected[0], [80.0, 80.0], atol=25.0)  # though its neighbours' residuals are larger
    elsewhere = (made.points > 200.0).any(1)
    assert motion_error(got.motion, made.true[:, elsewhere], made.points[elsewhere])[0] < 0.4


def test_no_patch_is_left_out_of_a_good_movie(movie, drift):
    got = correct(movie(640, 12, drift=drift(12), local=5.0).frames, patches=(4, 4))
    assert got.local is not None
    assert not got.local.rejected.any()
    assert got.local.patch_residuals.max() < 1.0
    # what is left of every patch is little more than its noise: the fit has converged there
    assert np.all(got.local.patch_residuals < 2.0 * got.local.patch_errors + 0.1)


def test_even_and_odd_sums_are_of_their_frames():
    frames = np.random.default_rng(2).poisson(5.0, (5, 128, 128)).astype(np.uint8)
    got = correct_movie(
        ArrayFrames(frames),
        MotionOptions(Exposure(1.0), SumOptions(weighted=False, halves=True), patches=(1, 1), find_defects=False),
    )
    shifts = got.motion.global_shifts
    alone = [
        correct_movie(
            ArrayFrames(frames[start::2]),
            MotionOptions(Exposure(1.0), SumOptions(weighted=False), patches=(1, 1), find_defects=False),
        )
        for start in (0, 1)
    ]
    assert got.sums.plain is not None
    assert got.sums.odd is not None
    assert got.sums.even is not None
    assert torch.allclose(got.sums.odd + got.sums.even, got.sums.plain, atol=1e-3)
    assert len(shifts) == 5
    for sums, one in ((got.sums.odd, alone[0]), (got.sums.even, alone[1])):
        assert float(sums.mean()) == pytest.approx(float(one.sums.plain.mean()), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("local", [0.0, 3.0])
@pytest.mark.parametrize("total", [1.0, 20.0])
@pytest.mark.parametrize("dose", [0.5, 1.0, 2.0])
def test_over_drifts_and_doses(movie, dose, total, local):
    """24 e/A^2 at 1 A a pixel: at most 0.2 px where all moves alike, 0.4 px where it does not."""
    n_frames = round(24.0 / dose)
    way = (np.arange(n_frames) / (n_frames - 1)) ** 0.7
    made = movie(
        1024, n_frames, dose=dose, contrast=0.08, drift=total * way[:, None] * [0.86, -0.51], local=local,
        course=lambda f: 1 - np.exp(-f * dose / 8.0),
    )  # fmt: skip
    got = correct(made.frames, patches=(5, 5), dose=dose)
    assert motion_error(got.motion, made.true, made.points)[0] < (0.4 if local else 0.2)


def test_a_spline_follows_a_jump_and_the_better_model_is_known(movie, drift):
    """Most of the local motion in one frame, early: a cubic in time swings about it."""
    jump, slow = (
        movie(640, 16, drift=drift(16), local=6.0, course=course)
        for course in (lambda f: float(f >= 3), lambda f: 1 - np.exp(-f / 4.0))
    )
    found = {}
    for made, name in ((jump, "jump"), (slow, "slow")):
        for model in ("polynomial", "spline", "best"):
            options = MotionOptions(Exposure(1.0, 300.0, 2.0), SumOptions(), patches=(5, 5), local_model=model)
            motion = correct_movie(ArrayFrames(made.frames), options).motion
            found[name, model] = motion, motion_error(motion, made.true, made.points)[0]
    assert found["jump", "polynomial"][1] > 0.6
    assert found["jump", "spline"][1] < 0.4
    assert found["slow", "polynomial"][1] < 0.3
    assert found["slow", "spline"][1] < 0.3
    assert found["jump", "best"][0].local_by_frame is not None
    assert found["slow", "best"][0].local_by_frame is None
    assert found["jump", "best"][1] == found["jump", "spline"][1]
    assert found["slow", "best"][1] == found["slow", "polynomial"][1]
    # the polynomial that stands for the spline in RELION's files is no worse than a polynomial can be
    stand_in = replace(found["jump", "spline"][0], local_by_frame=None)
    assert motion_error(stand_in, jump.true, jump.points)[0] < found["jump", "polynomial"][1] + 0.1


def test_a_workspace_used_before_changes_nothing(movie, drift):
    workspace = Workspace()
    made = [movie(size, 8, drift=drift(8), local=3.0, seed=size) for size in (512, 384)]
    for one in (*made, made[0]):
        options = MotionOptions(Exposure(1.0, 300.0, 2.0), SumOptions(plain=True), patches=(3, 3))
        alone, got = (correct_movie(ArrayFrames(one.frames), options, workspace=used) for used in (None, workspace))
        assert np.array_equal(alone.motion.global_shifts, got.motion.global_shifts)
        assert torch.equal(alone.sums.weighted, got.sums.weighted)
        assert torch.equal(alone.sums.plain, got.sums.plain)
        assert torch.equal(alone.sums.spectrum, got.sums.spectrum)
