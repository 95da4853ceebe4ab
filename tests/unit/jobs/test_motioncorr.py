from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.motion import displacement
from vitreous.data.table import Table
from vitreous.io.motion import read_motion
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context
from vitreous.jobs.motioncorr import Motioncorr

N_FRAMES, SIZE = 6, 256


def context(project: Path, resume: bool = False, threads: int = 1) -> Context:
    directory = project / "MotionCorr/job002"
    directory.mkdir(parents=True, exist_ok=True)
    return Context(project, directory, torch.device("cpu"), threads, 1, 4 << 30, resume)


def frames(seed: int, n: int = N_FRAMES, size: int = SIZE) -> np.ndarray:
    """A specimen that moves by (+1.5, -1) pixels (x, y) a frame, with shot noise."""
    rng = np.random.default_rng(seed)
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    k2 = ky**2 + kx**2
    white = np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-15 * k2) * (k2 > 1e-4)
    scale = 0.2 / np.fft.irfft2(white).std()
    moved = [white * np.exp(-2j * np.pi * (kx * 1.5 * f - ky * f)) for f in range(n)]
    return np.stack([rng.poisson(np.clip(2 * (1 + scale * np.fft.irfft2(m)), 0, None)) for m in moved])


def project(path: Path, n_movies: int = 2) -> list[str]:
    names = [f"Movies/m{i}.mrcs" for i in range(n_movies)]
    (path / "Movies").mkdir()
    for i, name in enumerate(names):
        write_image(path / name, frames(i).astype(np.int8), 1.1)
    write_movies(path, names)
    return names


def write_movies(path: Path, names: list[str]) -> None:
    optics = Table({"optics_group_name": ["g"], "optics_group": [1], "movie_pixel_size": [1.1]})
    optics = optics.with_columns(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    rows = Table({"movie_name": names}).with_columns(optics_group=1)
    write_dataset(path / "movies.star", Dataset("movies", optics, rows))


def run(path: Path, resume: bool = False, threads: int = 1, **params):
    given = {"input": "movies.star", "dose_per_frame": 2.0, "patch_x": 1, "patch_y": 1} | params
    return Motioncorr().run(Motioncorr.Parameters(**given), context(path, resume, threads))


def test_files_columns_and_numbers(tmp_path):
    project(tmp_path)
    outputs = run(tmp_path, save_no_dw=True, threads=2)
    star = "MotionCorr/job002/corrected_micrographs.star"
    assert outputs.nodes == {star: "MicrographGroupMetadata.star.relion.motioncorr"}
    dataset = read_dataset(tmp_path / star)
    assert dataset.kind == "micrographs"
    assert dataset.optics["micrograph_pixel_size"].tolist() == [1.1]
    assert dataset.rows["micrograph_name"].tolist() == [f"MotionCorr/job002/Movies/m{i}.mrc" for i in range(2)]
    for column in ("micrograph_name", "micrograph_name_no_dw", "power_spectrum_name", "micrograph_metadata"):
        assert all((tmp_path / name).exists() for name in dataset.rows[column]), column
    image, pixel_size = read_image(tmp_path / dataset.rows["micrograph_name"][0])
    assert image.shape == (SIZE, SIZE)
    assert pixel_size == pytest.approx(1.1)
    spectrum, spectrum_pixel_size = read_image(tmp_path / dataset.rows["power_spectrum_name"][0])
    assert spectrum.shape[0] == spectrum.shape[1] <= 512
    assert spectrum_pixel_size == pytest.approx(1.4)
    record = read_motion(tmp_path / dataset.rows["micrograph_metadata"][0])
    got = displacement(record.motion, np.arange(N_FRAMES), 100.0, 100.0)
    assert np.allclose(got, np.arange(N_FRAMES)[:, None] * [1.5, -1.0], atol=0.3)
    length = np.hypot(1.5, 1.0) * 1.1
    assert dataset.rows["motion_total"][0] == pytest.approx(5 * length, rel=0.1)
    assert dataset.rows["motion_early"][0] == pytest.approx(length, rel=0.2)
    assert outputs.metrics["n_movies"] == 2
    assert outputs.metrics["n_left_out"] == 0


def test_bad_movies_are_left_out_with_the_reason(tmp_path):
    names = project(tmp_path, 1)
    whole = (tmp_path / names[0]).read_bytes()
    (tmp_path / "Movies/short.mrcs").write_bytes(whole[: len(whole) // 2])
    nan = frames(5).astype(np.float32)
    write_image(tmp_path / "Movies/nan.mrcs", nan, 1.1)
    raw = bytearray((tmp_path / "Movies/nan.mrcs").read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    (tmp_path / "Movies/nan.mrcs").write_bytes(bytes(raw))
    write_image(tmp_path / "Movies/small.mrcs", frames(6, size=128).astype(np.int8), 1.1)
    extra = [names[0].replace("m0", other) for other in ("short", "nan", "small", "gone")]
    write_image(tmp_path / "Movies/m1.mrcs", frames(1).astype(np.int8), 1.1)
    write_movies(tmp_path, [*names, "Movies/m1.mrcs", *extra])
    outputs = run(tmp_path)
    assert [item.item for item in outputs.quarantined] == extra
    reasons = {Path(item.item).stem: item.reason for item in outputs.quarantined}
    assert "128 x 128 pixels, not 256 x 256" in reasons["small"]
    assert all("\n" not in reason and reason for reason in reasons.values())
    assert len(read_dataset(tmp_path / "MotionCorr/job002/corrected_micrographs.star")) == 2


def test_nothing_left_is_the_users_fault(tmp_path):
    (tmp_path / "Movies").mkdir()
    (tmp_path / "Movies/m0.mrcs").write_bytes(b"nothing")
    write_movies(tmp_path, ["Movies/m0.mrcs"])
    with pytest.raises(InputError):
        run(tmp_path)


def test_a_gain_of_another_size_stops_all(tmp_path):
    project(tmp_path, 1)
    write_image(tmp_path / "gain.mrc", np.ones((100, 120), np.float32), 1.1)
    with pytest.raises(InputError, match="120 x 100 pixels"):
        run(tmp_path, gain="gain.mrc")


def test_the_gain_is_applied(tmp_path):
    project(tmp_path, 1)
    write_image(tmp_path / "gain.mrc", np.full((SIZE, SIZE), 3.0, np.float32), 1.1)
    run(tmp_path, gain="gain.mrc", dose_weighting=False)
    image, _ = read_image(tmp_path / "MotionCorr/job002/Movies/m0.mrc")
    assert image.mean() == pytest.approx(3.0 * frames(0).sum(0).mean(), rel=1e-3)
    assert read_motion(tmp_path / "MotionCorr/job002/Movies/m0.star").gain_name == "gain.mrc"


def test_dose_weighting_needs_a_dose(tmp_path):
    project(tmp_path, 1)
    with pytest.raises(InputError, match="dose-per-frame"):
        run(tmp_path, dose_per_frame=0.0)


def test_resume_keeps_what_is_whole_and_makes_what_is_not(tmp_path):
    project(tmp_path, 2)
    first = run(tmp_path)
    job = tmp_path / "MotionCorr/job002"
    whole, broken = job / "Movies/m0.mrc", job / "Movies/m1.mrc"
    before = broken.read_bytes()
    times = whole.stat().st_mtime_ns
    broken.write_bytes(before[:1000])
    again = run(tmp_path, resume=True)
    assert whole.stat().st_mtime_ns == times
    assert broken.read_bytes() == before
    changing = {"seconds_per_movie"}
    assert {k: v for k, v in again.metrics.items() if k not in changing} == pytest.approx(
        {k: v for k, v in first.metrics.items() if k not in changing}, rel=1e-4, abs=1e-5
    )


def test_frames_can_be_left_out_and_binned(tmp_path):
    project(tmp_path, 1)
    run(tmp_path, first_frame=2, last_frame=5, bin=2, float16=True)
    record = read_motion(tmp_path / "MotionCorr/job002/Movies/m0.star")
    assert record.motion.n_frames == 4
    assert record.start_frame == 2
    image, pixel_size = read_image(tmp_path / "MotionCorr/job002/Movies/m0.mrc")
    assert image.shape == (128, 128)
    assert pixel_size == pytest.approx(2.2)
    dataset = read_dataset(tmp_path / "MotionCorr/job002/corrected_micrographs.star")
    assert dataset.optics["micrograph_pixel_size"][0] == pytest.approx(2.2)


def test_movies_of_one_name_are_refused(tmp_path):
    names = project(tmp_path, 1)
    write_movies(tmp_path, [names[0], names[0].replace(".mrcs", ".tiff")])
    with pytest.raises(InputError, match="two movies"):
        run(tmp_path)


def test_the_input_must_list_movies(tmp_path):
    optics = Table({"optics_group": [1], "voltage": [300.0]})
    rows = Table({"micrograph_name": ["a.mrc"], "optics_group": [1]})
    write_dataset(tmp_path / "movies.star", Dataset("micrographs", optics, rows))
    with pytest.raises(InputError, match="not movies"):
        run(tmp_path)
