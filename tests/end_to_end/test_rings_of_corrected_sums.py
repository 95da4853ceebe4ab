"""What motion correction is for: the CTF fit sees Thon rings further out in the corrected sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.ctf import fit_ctf, spectrum_of_micrograph
from vitreous.methods.ctf_fitting.correlation import Band
from vitreous.motion import ArrayFrames, Exposure, MotionOptions, SumOptions, correct_movie

SIZE, MARGIN, N_FRAMES, DOSE, PIXEL_SIZE = 768, 40, 12, 2.0, 1.0
LENS = Microscope(300.0, 2.7, 0.1)
DEFOCUS = (12200.0, 11800.0, 30.0)


def moving_frames(drift: float, local: float) -> NDArray[np.uint8]:
    """Random contrast seen through a lens, drifting by so many A, and in its parts by up to `local` A beside that."""
    full = SIZE + 2 * MARGIN
    at = Defocus(*(torch.tensor([value]) for value in (*DEFOCUS, 0.0)))
    rings = ctf((full, full), PIXEL_SIZE, LENS, at, b_factor=20.0)[0].numpy()
    rng = np.random.default_rng(0)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((full, full))) * rings)
    splines = spline_filter(field * (0.08 / field.std()), 3).astype(np.float32)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    u, v = x / SIZE - 0.5, y / SIZE - 0.5
    frames = np.empty((N_FRAMES, SIZE, SIZE), np.uint8)
    for number in range(N_FRAMES):
        way, part = drift * (number / (N_FRAMES - 1)) ** 0.7, local * (1 - np.exp(-number / 3.0))
        where = [MARGIN + y + 0.5 * way - part * v, MARGIN + x - 0.9 * way - part * (u - u * v)]
        image = map_coordinates(splines, where, order=3, prefilter=False)
        frames[number] = rng.poisson(np.clip(DOSE * (1 + image), 0, None))
    return frames


@pytest.mark.parametrize(("drift", "local"), [(5.0, 0.0), (15.0, 4.0)])
def test_rings_reach_further_than_in_the_uncorrected_sum(drift: float, local: float) -> None:
    frames = moving_frames(drift, local)
    options = MotionOptions(Exposure(PIXEL_SIZE, 300.0, DOSE), SumOptions(weighted=False, spectrum_box=0))
    corrected = correct_movie(ArrayFrames(frames), options).sums.plain
    assert corrected is not None
    before, after = (
        fit_ctf(spectrum_of_micrograph(image, PIXEL_SIZE), LENS, Band(30.0, 5.0))
        for image in (frames.sum(0, dtype=np.float32), corrected.numpy())
    )
    assert after.has_rings
    assert after.resolution < 3.2
    assert after.resolution < 0.8 * before.resolution or not before.has_rings
    assert after.defocus_u == pytest.approx(DEFOCUS[0], abs=30.0)
    assert after.defocus_v == pytest.approx(DEFOCUS[1], abs=30.0)
