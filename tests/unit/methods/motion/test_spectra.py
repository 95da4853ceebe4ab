from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.methods.motion.patches import cut_patches
from vitreous.methods.motion.spectra import alignment_band, bin_frame, binned_band, phases


def test_binned_frames_have_a_quick_size_and_keep_the_band():
    band, factor = binned_band((3838, 3710), 0.25)
    assert factor == 2
    assert 1919 - 40 < band.cropped[0] <= 1919
    assert 1855 - 40 < band.cropped[1] <= 1855
    assert all(size % 2 == 0 for size in band.cropped)
    assert float(band.ky.abs().max()) == pytest.approx(0.25)
    assert binned_band((512, 512), 0.4)[1] == 1


def test_bins_are_sums_of_their_pixels():
    frame = torch.arange(9 * 8, dtype=torch.float32).reshape(9, 8)
    band, factor = binned_band((9, 8), 0.25)
    got = bin_frame(frame, band, factor)
    assert got.shape == (4, 4)
    assert float(got[1, 2]) == float(frame[2:4, 4:6].sum())
    assert torch.equal(bin_frame(frame, *binned_band((9, 8), 0.5)), frame[:8])


def test_small_fields_are_cropped_and_large_ones_binned(generator):
    band, factor = alignment_band((512, 480), 150.0, 0.5)
    assert factor == 0
    assert band.cropped[0] < 512
    frame = torch.randn(512, 480, generator=generator)
    got = band.crop(torch.fft.rfft2(frame))
    assert got.shape == (band.cropped[0], band.cropped[1] // 2 + 1)
    assert torch.allclose(got[3, 5], torch.fft.rfft2(frame)[3, 5], rtol=1e-3)
    assert (band.transform(frame) - got).abs().max() < 1e-5 * got.abs().max()
    band, factor = alignment_band((4096, 4096), 150.0, 0.5)
    assert (factor, band.cropped) == (2, (2048, 2048))


def test_white_noise_stays_white(generator):
    frame = torch.randn(512, 512, generator=generator)
    band, factor = binned_band((512, 512), 0.25)
    power = torch.fft.rfft2(bin_frame(frame, band, factor)).abs().square()
    assert float(power[:40, 1:40].mean() / power[100:156, 80:127].mean()) == pytest.approx(1.0, abs=0.08)


def test_patches_of_moved_frames_are_those_of_the_frame_that_did_not_move(generator):
    """Whole pixels are cut, the rest is a phase: both together undo the displacement."""
    band, factor = binned_band((512, 512), 0.25)
    white = torch.fft.rfft2(torch.randn(256, 256, generator=generator))
    white *= torch.exp(-60.0 * (band.ky[:, None] ** 2 + band.kx**2)).float()
    displacements = torch.tensor([[0.0, 0.0], [9.3, -4.7]], dtype=torch.float64)
    frames = []
    for displacement in displacements:
        row, column = phases(band, -displacement, torch.device("cpu"))
        frames.append(torch.fft.irfft2(white * row * column, s=(256, 256)))
    cut, patch_band, centres = cut_patches(torch.stack(frames), band, displacements, np.arange(2), (3, 3))
    assert cut.shape[:2] == (9, 2)
    assert centres[4] == pytest.approx([256.0, 256.0], abs=2.0)
    assert patch_band.shape[0] == pytest.approx(factor * patch_band.cropped[0])
    difference = (cut[:, 1] - cut[:, 0]).abs().square().sum() / cut[:, 0].abs().square().sum()
    assert float(difference) < 0.01  # the soft edges fall elsewhere by less than a pixel
    both, _, _ = cut_patches(torch.stack(frames), band, displacements, np.zeros(2, int), (3, 3))
    assert torch.allclose(both[:, 0], cut.sum(1), atol=1e-3)
