from __future__ import annotations

import numpy as np
import pytest

from vitreous.core.errors import InputError
from vitreous.data.motion import Motion, accumulated_motion, local_shift, nearest_polynomial
from vitreous.io.motion import MotionRecord, read_motion, write_motion
from vitreous.io.relion import read_table, write_tables


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    motion = Motion(
        (300, 200),
        rng.normal(size=(5, 2)),
        rng.normal(size=(2, 18)),
        rng.uniform(0, 200, size=(4, 2)),
        rng.normal(size=(4, 5, 2)),
        rng.integers(0, 200, size=(3, 2)),
    )
    record = MotionRecord(motion, "Movies/a.tiff", 0.9, 1.2, 0.5, 200.0, 2.0, 3, "gain.mrc", {"residual": 0.3})
    write_motion(tmp_path / "a.star", record)
    back = read_motion(tmp_path / "a.star")
    for name in ("global_shifts", "coefficients", "patch_centres", "patch_shifts", "hot_pixels"):
        assert np.allclose(getattr(back.motion, name), getattr(motion, name), atol=2e-6), name
    assert back.motion.shape == (300, 200)
    assert (back.movie_name, back.gain_name, back.start_frame) == ("Movies/a.tiff", "gain.mrc", 3)
    assert (back.pixel_size, back.dose_per_frame, back.voltage, back.binning) == (0.9, 1.2, 200.0, 2.0)
    assert back.fit["residual"] == 0.3


def test_a_spline_stands_beside_the_polynomial_that_relion_reads(tmp_path):
    rng = np.random.default_rng(1)
    by_frame = rng.normal(size=(5, 2, 6))
    motion = Motion((300, 200), rng.normal(size=(5, 2)), nearest_polynomial(by_frame), local_by_frame=by_frame)
    write_motion(tmp_path / "a.star", MotionRecord(motion, "a.tiff", 0.9, start_frame=2))
    back = read_motion(tmp_path / "a.star").motion
    assert np.allclose(back.local_by_frame, by_frame, atol=2e-6)
    assert np.allclose(back.coefficients, motion.coefficients, atol=2e-6)
    assert int(read_table(tmp_path / "a.star", "general")["motion_model_version"][0]) == 1
    assert len(read_table(tmp_path / "a.star", "local_motion_model")["motion_coefficient"]) == 36


def test_no_local_model(tmp_path):
    write_motion(tmp_path / "a.star", MotionRecord(Motion((30, 20), np.zeros((2, 2))), "a.mrc", 1.0))
    back = read_motion(tmp_path / "a.star")
    assert back.motion.coefficients is None
    assert back.motion.patch_shifts.size == 0


def test_what_is_no_motion_file_says_so(tmp_path):
    write_tables(tmp_path / "x.star", {"general": {"voltage": 300.0}})
    with pytest.raises(InputError, match="no motion"):
        read_motion(tmp_path / "x.star")


@pytest.mark.data
def test_relions_files_are_read_and_its_model_fits_its_patches(data_dir):
    job = data_dir / "betagal_empiar10204" / "MotionCorr" / "job002"
    files = sorted((job / "Movies").glob("*.star"))
    assert len(files) >= 9
    for file in files:
        record = read_motion(file)
        motion = record.motion
        assert motion.shape == (3838, 3710)
        assert motion.n_frames == 24
        assert motion.patch_shifts.shape == (25, 24, 2)
        x, y = motion.patch_centres[:, None, 0], motion.patch_centres[:, None, 1]
        model = local_shift(motion, np.arange(24)[None], x, y)
        # the polynomial explains much of what RELION measured: sign, order of terms and normalisation are right
        assert np.std(motion.patch_shifts - model) < 0.8 * np.std(motion.patch_shifts)
        shifted = local_shift(motion, np.arange(24)[None], y, x)
        assert np.std(motion.patch_shifts - model) < np.std(motion.patch_shifts - shifted)


@pytest.mark.data
def test_accumulated_motion_is_relions(data_dir):
    project = data_dir / "betagal_empiar10204"
    table = read_table(project / "MotionCorr/job002/corrected_micrographs.star", "micrographs")
    checked = 0
    for row in range(table.n_rows):
        file = project / table["micrograph_metadata"][row]
        if not file.exists():
            continue
        record = read_motion(file)
        # pixel size 1: RELION's columns are in pixels
        got = accumulated_motion(record.motion, 1.0, record.dose_per_frame)
        assert got.total == pytest.approx(table["motion_total"][row], rel=1e-4)
        assert got.early == pytest.approx(table["motion_early"][row], rel=1e-4)
        checked += 1
    assert checked >= 9
