"""Ours against relion_run_motioncorr on the same movie: signs, shifts, local model, dose-weighted sum, files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates, spline_filter

from vitreous.core.fourier import radius_grid
from vitreous.data.dataset import Dataset
from vitreous.data.motion import field_displacement, grid_points, motion_error
from vitreous.data.table import Table
from vitreous.io.motion import read_motion
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import write_dataset
from vitreous.job import Context
from vitreous.jobs.motioncorr import Motioncorr

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_run_motioncorr") is None, reason="relion_run_motioncorr is not installed"),
]
N, MARGIN, N_FRAMES = 1024, 32, 8


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One movie with drift and a local stretch along x, processed by both programs."""
    path = tmp_path_factory.mktemp("motioncorr")
    rng = np.random.default_rng(1)
    size = N + 2 * MARGIN
    k2 = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size) ** 2
    specimen = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-30 * k2) * (k2 > 2e-5))
    splines = spline_filter(specimen / specimen.std(), 3).astype(np.float32)
    y, x = np.mgrid[0:N, 0:N].astype(np.float32)
    frames = []
    for f in range(N_FRAMES):
        dx, dy = _true(f, x, y)
        image = map_coordinates(splines, [MARGIN + y - dy, MARGIN + x - dx], order=3, prefilter=False)
        frames.append(rng.poisson(np.clip(2 * (1 + 0.25 * image), 0, None)))
    write_image(path / "m.mrcs", np.array(frames, np.float32), 1.0)
    optics = Table({"optics_group_name": ["opticsGroup1"], "optics_group": [1], "movie_pixel_size": [1.0]})
    optics = optics.with_columns(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    rows = Table({"movie_name": ["m.mrcs"], "optics_group": [1]})
    write_dataset(path / "movies.star", Dataset("movies", optics, rows))
    words = "relion_run_motioncorr --i movies.star --o relion/ --use_own --dose_weighting --dose_per_frame 2 --j 1"
    words += " --voltage 300 --patch_x 4 --patch_y 4 --grouping_for_ps 2 --save_noDW"
    subprocess.run(words.split(), cwd=path, check=True, capture_output=True, timeout=120)
    directory = path / "MotionCorr/job002"
    directory.mkdir(parents=True)
    params = Motioncorr.Parameters(input="movies.star", dose_per_frame=2.0, patch_x=4, patch_y=4, save_no_dw=True)
    Motioncorr().run(params, Context(path, directory, torch.device("cpu"), 1, 1, 4 << 30))
    return path


def _true(f: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 1.2 * f + 0.7 * f * (x / N - 0.5), -0.7 * f + 0.0 * y


def test_both_find_the_motion_and_agree(project):
    points = grid_points((N, N))
    true = np.stack([np.stack(_true(f, points[:, 0], points[:, 1]), 1) for f in range(N_FRAMES)])
    relion = read_motion(project / "relion/m.star").motion
    ours = read_motion(project / "MotionCorr/job002/m.star").motion
    theirs_error = motion_error(relion, true, points)[0]
    our_error = motion_error(ours, true, points)[0]
    print(f"error in px: ours {our_error:.3f}, RELION's {theirs_error:.3f}")
    assert theirs_error < 0.7  # so its signs and polynomial are read as it means them
    assert our_error < 0.15
    assert our_error < theirs_error
    difference = field_displacement(ours, points) - field_displacement(relion, points)
    assert np.abs(difference.mean(1)).max() < 0.5


def test_sums_agree(project):
    for name in ("m.mrc", "m_noDW.mrc"):
        theirs, _ = read_image(project / "relion" / name)
        ours, _ = read_image(project / "MotionCorr/job002" / name)
        assert ours.mean() == pytest.approx(theirs.mean(), rel=2e-3)
        a, b = (torch.fft.rfft2(torch.from_numpy(i - i.mean())) for i in (ours, theirs))
        ring = radius_grid((N, N)) < 0.12
        correlation = (a * b.conj())[ring].real.sum() / (a[ring].norm() * b[ring].norm())
        assert correlation > 0.9, name


def test_dose_weights_fall_off_alike(project):
    ratios = []
    k = radius_grid((N, N))
    for directory in ("relion", "MotionCorr/job002"):
        weighted, plain = (
            torch.fft.rfft2(torch.from_numpy(read_image(project / directory / name)[0]))
            for name in ("m.mrc", "m_noDW.mrc")
        )
        curve = []
        for low in (0.02, 0.06, 0.1):
            ring = (k >= low) & (k < low + 0.02)
            curve.append(float((weighted * plain.conj())[ring].real.sum() / plain[ring].abs().square().sum()))
        ratios.append(np.array(curve))
    assert np.allclose(ratios[0], ratios[1], rtol=0.02)


def test_power_spectra_have_the_same_scale(project):
    theirs, their_size = read_image(project / "relion/m_PS.mrc")
    ours, our_size = read_image(project / "MotionCorr/job002/m_PS.mrc")
    assert ours.shape == theirs.shape
    assert our_size == pytest.approx(their_size, rel=2e-3)
    radius = np.hypot(*(np.indices(ours.shape) - 256)).astype(int)
    inside = (radius > 10) & (radius < 60)
    profile = [np.bincount(radius[inside], s[inside])[11:] for s in (ours, theirs)]
    assert np.corrcoef(*profile)[0, 1] > 0.98


def test_relion_takes_our_micrographs_as_done(project):
    """RELION reads our per-movie STAR file where its own would be and lists the motion in it."""
    shutil.copytree(project / "relion", project / "again")
    shutil.copy(project / "MotionCorr/job002/m.star", project / "again/m.star")
    words = "relion_run_motioncorr --i movies.star --o again/ --use_own --dose_weighting --dose_per_frame 2 --j 1"
    words += " --voltage 300 --patch_x 4 --patch_y 4 --grouping_for_ps 2 --save_noDW --only_do_unfinished"
    done = subprocess.run(words.split(), cwd=project, check=True, capture_output=True, timeout=120, text=True)
    assert "ERROR" not in done.stderr.replace("ERROR in executing: gs", "")
    joint = (project / "again/corrected_micrographs.star").read_text()
    shifts = read_motion(project / "MotionCorr/job002/m.star").motion.global_shifts
    length = np.hypot(*np.diff(shifts, axis=0).T).sum()
    row = next(line for line in joint.splitlines() if "m.star" in line)
    assert float(row.split()[-3]) == pytest.approx(length, rel=1e-3)
