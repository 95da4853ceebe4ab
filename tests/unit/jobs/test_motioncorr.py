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
from vitreous.job import Context, option_names
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


@pytest.mark.parametrize("given", ["Movies", "Movies/*.mrcs"])
def test_a_folder_or_a_pattern_of_movies(tmp_path, given):
    project(tmp_path)
    (tmp_path / "Movies/notes.txt").write_text("no movie")
    outputs = run(tmp_path, input=given, voltage=200.0)
    dataset = read_dataset(tmp_path / "MotionCorr/job002/corrected_micrographs.star")
    assert outputs.metrics["n_movies"] == 2
    assert dataset.optics["voltage"].tolist() == [200.0]
    assert dataset.optics["movie_pixel_size"][0] == pytest.approx(1.1)  # from the headers
    assert {"cs", "amplitude_contrast", "micrograph_pixel_size"} <= set(dataset.optics)
    with pytest.raises(InputError, match="matches no movies"):
        run(tmp_path, input="Movies/*.tiff")


def test_what_is_given_goes_before_the_star_file(tmp_path):
    project(tmp_path, 1)
    run(tmp_path, pixel_size=1.3, voltage=120.0)
    dataset = read_dataset(tmp_path / "MotionCorr/job002/corrected_micrographs.star")
    assert dataset.optics["movie_pixel_size"].tolist() == [1.3]
    assert read_motion(tmp_path / "MotionCorr/job002/Movies/m0.star").voltage == 120.0


def test_sums_of_every_other_frame(tmp_path):
    project(tmp_path, 1)
    run(tmp_path, save_even_odd=True, save_no_dw=True)
    row = read_dataset(tmp_path / "MotionCorr/job002/corrected_micrographs.star").rows.row(0)
    plain, even, odd = (
        read_image(tmp_path / row[name])[0]
        for name in ("micrograph_name_no_dw", "micrograph_name_even", "micrograph_name_odd")
    )
    assert np.allclose(even + odd, plain, atol=1e-3)
    assert not np.allclose(even, odd)


def test_aligned_movies_are_written(tmp_path):
    project(tmp_path, 1)
    run(tmp_path, save_movies=True, save_no_dw=True, bin=2)
    row = read_dataset(tmp_path / "MotionCorr/job002/corrected_micrographs.star").rows.row(0)
    stack, pixel_size = read_image(tmp_path / row["micrograph_movie_name"])
    plain, _ = read_image(tmp_path / row["micrograph_name_no_dw"])
    assert row["micrograph_movie_name"].endswith("m0_movie.mrcs")
    assert stack.shape == (N_FRAMES, SIZE // 2, SIZE // 2)
    assert pixel_size == pytest.approx(2.2)
    assert np.allclose(stack.sum(0), plain, atol=1e-3)
    # what moved stands still: neighbouring frames are alike where they lie, not where they lay
    low = np.fft.rfft2(stack)[:, :20, :20]
    low[:, 0, 0] = 0
    here = (low[0] * low[-1].conj()).real.sum() / np.sqrt((abs(low[0]) ** 2).sum() * (abs(low[-1]) ** 2).sum())
    raw = np.fft.rfft2(frames(0).astype(float))[:, :20, :20]
    raw[:, 0, 0] = 0
    there = (raw[0] * raw[-1].conj()).real.sum() / np.sqrt((abs(raw[0]) ** 2).sum() * (abs(raw[-1]) ** 2).sum())
    assert here > there + 0.2


def test_frames_are_left_out_at_both_ends(tmp_path):
    project(tmp_path, 1)
    run(tmp_path, throw=1, trunc=2, dose_weighting=False)
    record = read_motion(tmp_path / "MotionCorr/job002/Movies/m0.star")
    assert record.start_frame == 2
    assert record.motion.n_frames == N_FRAMES - 3
    image, _ = read_image(tmp_path / "MotionCorr/job002/Movies/m0.mrc")
    assert image.mean() == pytest.approx(frames(0)[1:-2].sum(0).mean(), rel=1e-3)


def test_doses_of_eer_fractions_and_groups():
    params = Motioncorr.Parameters(input="a.star", eer_raw_dose=0.04, eer_fraction_dose=1.0, dose_per_frame=3.0)
    assert params.grouping("a.eer") == 25
    assert params.dose_of("a.EER") == pytest.approx(1.0)
    assert params.dose_of("a.tiff") == 3.0
    assert Motioncorr.Parameters(input="a.star", eer_grouping=30).grouping("a.eer") == 30
    by_dose = Motioncorr.Parameters(input="a.star", dose_per_frame=0.5, group_dose=2.0, group_frames=3)
    assert by_dose.group_of("a.mrc") == 4
    assert Motioncorr.Parameters(input="a.star", group_frames=3).group_of("a.mrc") == 3


def test_a_gain_is_estimated_where_none_is_given(tmp_path):
    names = project(tmp_path, 6)
    gain = np.random.default_rng(8).normal(1.0, 0.15, (SIZE, SIZE)).clip(0.4).astype(np.float32)
    for i, name in enumerate(names):
        raw = np.random.default_rng(i).poisson(30.0 / gain, (N_FRAMES, SIZE, SIZE))
        write_image(tmp_path / name, raw.astype(np.float32), 1.1)
    run(tmp_path, estimate_gain=10, dose_weighting=False)
    found, _ = read_image(tmp_path / "MotionCorr/job002/gain_estimated.mrc")
    assert np.corrcoef(found.ravel(), gain.ravel())[0, 1] > 0.9
    with_it, _ = read_image(tmp_path / "MotionCorr/job002/Movies/m0.mrc")
    run(tmp_path, dose_weighting=False)
    without, _ = read_image(tmp_path / "MotionCorr/job002/Movies/m0.mrc")
    assert with_it.std() < 0.8 * without.std()


def test_global_alignment_only_is_said(tmp_path, caplog):
    project(tmp_path, 1)
    outputs = run(tmp_path, patch_x=3, patch_y=3)
    assert outputs.metrics["n_global_only"] == 1
    assert "1 aligned as a whole because" in outputs.summary
    assert "Movies/m0.mrcs: global alignment only" in caplog.text
    record = read_motion(tmp_path / "MotionCorr/job002/Movies/m0.star")
    assert record.patches is not None
    assert record.patches.n_rows == 9
    assert (record.patches["residual_px"] > 0).all()


def test_what_the_optics_know_is_handed_on(tmp_path):
    """The MTF belongs to the movies' pixels, whose size stays beside that of the binned micrographs."""
    project(tmp_path, 1)
    movies = read_dataset(tmp_path / "movies.star")
    optics = movies.optics.with_columns(mtf_file=["mtf.star"])
    write_dataset(tmp_path / "movies.star", Dataset("movies", optics, movies.rows))
    run(tmp_path, bin=2)
    got = read_dataset(tmp_path / "MotionCorr/job002/corrected_micrographs.star").optics
    assert got["mtf_file"].tolist() == ["mtf.star"]
    assert got["movie_pixel_size"].tolist() == [1.1]
    assert got["micrograph_pixel_size"].tolist() == [2.2]


def test_relions_spellings():
    names = {one for field, info in Motioncorr.Parameters.model_fields.items() for one in option_names(field, info)}
    words = "i angpix voltage dose_per_frame preexposure bin_factor bfactor patch_x patch_y dose_weighting gpu use_own"
    words += " first_frame_sum last_frame_sum gainref gain_rot gain_flip defect_file group_frames grouping_for_ps j"
    words += " eer_grouping eer_upsampling save_noDW save_movies max_iter skip_defect ps_size float16"
    assert {f"--{word}" for word in words.split()} <= names
