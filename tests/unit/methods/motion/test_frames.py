from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.methods.motion.bad_pixels import Repair, bad_pixels
from vitreous.methods.motion.frames import ArrayFrames, PreparedFrames


def poisson_frames(n: int = 10, size: int = 128, mean: float = 3.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, (n, size, size)).astype(np.float32)


def test_hot_cold_and_dead_pixels_are_found_and_few_others():
    frames = poisson_frames()
    frames[:, 10, 20] += 8
    frames[:, 90, 5] = 0  # 30 counts are missing: 5.5 standard deviations only
    bad = bad_pixels(torch.from_numpy(frames.sum(0)))
    assert bad[10, 20]
    assert bad[90, 5]
    assert bad.sum() <= 4


def test_a_gradient_of_illumination_is_not_a_defect():
    frames = poisson_frames() * np.linspace(0.5, 2.0, 128)[:, None].astype(np.float32)
    assert bad_pixels(torch.from_numpy(frames.sum(0))).mean() < 2e-3


def test_sparse_movies_have_no_dead_pixels():
    frames = poisson_frames(2, mean=0.2)
    assert not (bad_pixels(torch.from_numpy(frames.sum(0))) & (frames.sum(0) == 0)).any()


def test_replacements_have_the_noise_of_pixels_around_and_change_from_frame_to_frame():
    frames = poisson_frames(200, 32, mean=4.0)
    bad = np.zeros((32, 32), dtype=bool)
    bad[8:12, 8:12] = bad[0, 0] = bad[31, 31] = True
    repair = Repair(bad)
    values = []
    for number, frame in enumerate(frames):
        frame[bad] = 1000.0
        repair(torch.from_numpy(frame), number)
        values.append(frame[bad])
    assert np.mean(values) == pytest.approx(4.0, abs=0.15)
    assert np.std(values, axis=0).mean() == pytest.approx(2.0, abs=0.15)


def test_a_dead_quarter_is_filled_from_afar():
    bad = np.zeros((64, 64), dtype=bool)
    bad[:32, :32] = True
    frame = torch.from_numpy(np.where(bad, -1.0, 5.0).astype(np.float32))
    Repair(bad)(frame, 0)
    assert (frame == 5.0).all()


def test_everything_bad_is_refused():
    with pytest.raises(ValueError, match="every pixel"):
        Repair(np.ones((8, 8), dtype=bool))


@pytest.mark.parametrize("keep", [True, False])
def test_frames_are_multiplied_by_the_gain(keep):
    frames = poisson_frames(3, 64)
    gain = torch.rand(64, 64, generator=torch.Generator().manual_seed(1)) + 0.5
    prepared = PreparedFrames(ArrayFrames(frames), gain=gain, find_defects=False, keep=keep)
    for number in (0, 2):
        image = prepared.stack(number, number + 1)[0]
        assert torch.equal(image, torch.from_numpy(frames[number]) * gain)


def test_zero_gain_marks_a_defect():
    gain = torch.ones(64, 64)
    gain[5, 6] = 0
    prepared = PreparedFrames(ArrayFrames(poisson_frames(3, 64)), gain=gain)
    assert prepared.bad[5, 6]
    assert prepared.stack(0, 1)[0, 5, 6] > 0


def test_frames_that_hold_nan_are_named():
    frames = poisson_frames(3, 64)
    frames[1, 3, 4] = np.nan
    with pytest.raises(ValueError, match="frame 2 holds values that are not numbers"):
        PreparedFrames(ArrayFrames(frames))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_binned_frames_are_those_of_repaired_frames(factor):
    frames = poisson_frames(4, 100)
    frames[:, 10, 20] += 500
    frames[:, 99, 99] += 500  # beyond the last whole bin, where there are three to a side
    size = 100 // factor
    prepared = PreparedFrames(ArrayFrames(frames), binning=(factor, (size, size)))
    assert prepared.bad[10, 20]
    held = prepared.stack(0, 4)[:, : size * factor, : size * factor]
    binned = prepared.take_binned()
    torch.testing.assert_close(binned, held.reshape(4, size, factor, size, factor).sum((2, 4)))
    assert prepared.take_binned() is None
