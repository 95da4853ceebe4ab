from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.io.failed import read_failed
from vitreous.io.movies import TiffMovie
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import read_dataset, read_table
from vitreous.io.tiff import read_tiff, write_tiff
from vitreous.job import Context, JobParameters, option_names
from vitreous.jobs import _preprocess_stream
from vitreous.jobs._preprocess_parameters import _NAMES, _STEPS, PreprocessParameters, Steps
from vitreous.jobs.autopick import Autopick
from vitreous.jobs.ctf import Ctf
from vitreous.jobs.extract import Extract
from vitreous.jobs.motioncorr import Motioncorr
from vitreous.jobs.preprocess import Preprocess
from vitreous.jobs.simulate_movies import SimulateMovies
from vitreous.methods.picking.selection import Cut

N = 3
MOTION = {"input": "Simulate/job000/movies.star", "patch_x": 1, "patch_y": 1, "dose_per_frame": 5.0}
CTF = {"defocus_min": 8000.0, "defocus_max": 25000.0}
PICK = {"diameter_min": 110.0, "diameter_max": 150.0}
ALL = MOTION | CTF | PICK | {"box": 48}


def context(project: Path, job: str, *, resume: bool = False, threads: int = 1) -> Context:
    directory = project / job
    directory.mkdir(parents=True, exist_ok=True)
    return Context(project, directory, torch.device("cpu"), threads, 1, 4 << 30, resume)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Movies, and what the four jobs make of them one after the other."""
    path = tmp_path_factory.mktemp("preprocess")
    params = SimulateMovies.Parameters(
        n_movies=N, frames=6, size_x=640, size_y=640, pixel_size=2.0, particles=24, defocus_min=12000
    )
    SimulateMovies().run(params, context(path, "Simulate/job000"))
    Motioncorr().run(Motioncorr.Parameters(**MOTION), context(path, "MotionCorr/job001"))
    star = "MotionCorr/job001/corrected_micrographs.star"
    Ctf().run(Ctf.Parameters(input=star, **CTF), context(path, "CtfFind/job002"))
    star = "CtfFind/job002/micrographs_ctf.star"
    Autopick().run(Autopick.Parameters(input=star, **PICK), context(path, "AutoPick/job003"))
    picks = "AutoPick/job003/autopick.star"
    params = Extract.Parameters(micrographs=star, coordinates=picks, box=48)
    Extract().run(params, context(path, "Extract/job004"))
    return path


@pytest.fixture
def project(simulated: Path, tmp_path: Path) -> Path:
    (tmp_path / "Simulate").symlink_to(simulated / "Simulate")
    return tmp_path


def preprocess(project: Path, resume: bool = False, threads: int = 1, **changed):
    here = context(project, "Preprocess/job005", resume=resume, threads=threads)
    return Preprocess().run(Preprocess.Parameters(**(ALL | changed)), here)


def same_tables(one: Path, other: Path) -> None:
    """Equal but for the jobs that files lie in."""
    first, second = read_dataset(one), read_dataset(other)
    for a, b in ((first.optics, second.optics), (first.rows, second.rows)):
        assert set(a) == set(b)
        for name in a:
            if a[name].dtype == object:
                assert [strip(text) for text in a[name]] == [strip(text) for text in b[name]], name
            else:
                np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def strip(text: str) -> str:
    return text[text.index("movies/") :] if "movies/" in text else text


def same_images(one: Path, other: Path) -> None:
    np.testing.assert_array_equal(read_image(one)[0], read_image(other)[0])
    assert read_image(one)[1] == read_image(other)[1]


def check_same(simulated: Path, project: Path) -> None:
    ours = project / "Preprocess/job005"
    same_tables(ours / "corrected_micrographs.star", simulated / "MotionCorr/job001/corrected_micrographs.star")
    same_tables(ours / "micrographs_ctf.star", simulated / "CtfFind/job002/micrographs_ctf.star")
    same_tables(ours / "particles.star", simulated / "Extract/job004/particles.star")
    for job, ending in (
        ("MotionCorr/job001", ".mrc"), ("MotionCorr/job001", "_PS.mrc"), ("CtfFind/job002", "_ctf.mrc"),
        ("Extract/job004", ".mrcs"),
    ):  # fmt: skip
        theirs = sorted((simulated / job).rglob(f"movie_000?{ending}"))
        assert theirs
        for path in theirs:
            same_images(next(ours.rglob(path.name)), path)
    listing, before = (read_table(place / "autopick.star", "coordinate_files") for place in (
        ours, simulated / "AutoPick/job003"
    ))  # fmt: skip
    for mine, theirs in zip(listing["coordinate_file"], before["coordinate_file"], strict=True):
        a, b = read_table(project / mine), read_table(simulated / theirs)
        assert set(a) == set(b)
        assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_to_the_bit_as_the_jobs_one_after_the_other(simulated: Path, project: Path, threads: int) -> None:
    torch.set_num_threads(1)
    outputs = preprocess(project, threads=threads)
    assert outputs.metrics["n_movies"] == N
    assert outputs.metrics["n_left_out"] == 0
    assert outputs.metrics["n_particles"] > 0
    assert len(outputs.nodes) == 4
    check_same(simulated, project)
    assert not list((project / "Preprocess").rglob("*.tmp*"))


def test_what_was_cut_by_an_early_threshold_is_cut_again(
    simulated: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_preprocess_stream.Stream, "_cut_so_far", lambda self, found: Cut(-np.inf, np.inf, "pooled"))
    preprocess(project)
    check_same(simulated, project)


def test_nothing_is_read_back_between_the_steps(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(_preprocess_stream, "map_image", refuse)
    monkeypatch.setattr(_preprocess_stream.Stream, "settle", lambda self, done, cut: replace(done, cut=cut))
    preprocess(project)


def test_half_precision_is_what_the_jobs_would_read(project: Path) -> None:
    preprocess(project, float16=True)
    cut = Extract.Parameters(
        micrographs="Preprocess/job005/micrographs_ctf.star",
        coordinates="Preprocess/job005/autopick.star",
        box=48,
        float16=True,
    )
    Extract().run(cut, context(project, "Extract/job006"))
    stacks = sorted((project / "Extract/job006").rglob("*.mrcs"))
    assert stacks
    for path in stacks:
        same_images(next((project / "Preprocess/job005").rglob(path.name)), path)


def test_without_a_diameter_it_ends_with_the_ctf(project: Path) -> None:
    outputs = Preprocess().run(Preprocess.Parameters(**MOTION, **CTF), context(project, "Preprocess/job005"))
    assert not (project / "Preprocess/job005/autopick.star").exists()
    assert "n_picks" not in outputs.metrics
    assert len(read_dataset(project / "Preprocess/job005/micrographs_ctf.star")) == N


def test_resuming_makes_only_what_is_missing(simulated: Path, project: Path) -> None:
    preprocess(project)
    job = project / "Preprocess/job005"
    times = {path: path.stat().st_mtime_ns for path in job.rglob("movie_000*")}
    gone = [
        path for path in times if path.name in ("movie_0001.star", "movie_0002_ctf.star", "movie_0003_autopick.star")
    ]
    assert len(gone) == 3
    for path in gone:
        path.unlink()
    for path in job.glob("*.star"):
        path.unlink()
    preprocess(project, resume=True)
    check_same(simulated, project)
    kept = [
        path for path in times if path.name in ("movie_0002.mrc", "movie_0003_ctf.mrc", "movie_0003_candidates.star")
    ]
    assert len(kept) == 3
    assert all(path.stat().st_mtime_ns == times[path] for path in kept)


@pytest.fixture
def faulty(project: Path) -> Path:
    """A folder of two good movies, and others that are not."""
    (project / "Movies").mkdir()
    whole = project / "Simulate/job000/movies/movie_0001.tiff"
    for name in ("good1", "good2", "cut", "gone"):
        shutil.copy(whole, project / f"Movies/{name}.tiff")
    with (project / "Movies/cut.tiff").open("r+b") as stream:
        stream.truncate(whole.stat().st_size // 2)
    frames = np.zeros((6, 640, 640), np.uint8)
    write_tiff(project / "Movies/zero.tiff", frames, 2.0)
    write_tiff(project / "Movies/size.tiff", frames[:, :400] + 1, 2.0)
    nan = np.ones((6, 640, 640), np.float32)
    nan[3, 5, 6] = np.nan
    write_tiff(project / "Movies/nan.tiff", nan, 2.0)
    return project


def test_bad_movies_are_named_and_the_rest_is_done(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = TiffMovie.raw_frames

    def raw_frames(self: TiffMovie) -> np.ndarray:
        if self.path.stem == "gone":
            self.path.unlink()
        return read(self)

    monkeypatch.setattr(TiffMovie, "raw_frames", raw_frames)
    outputs = preprocess(faulty, input="Movies")
    reasons = {Path(one.item).stem: one.reason for one in outputs.quarantined}
    assert set(reasons) == {"cut", "zero", "size", "nan", "gone"}
    for name, word in (
        ("cut", "truncated"), ("zero", "blank"), ("size", "640 x 400"), ("nan", "NaN"), ("gone", "No such file"),
    ):  # fmt: skip
        assert word in reasons[name]
    assert len(read_dataset(faulty / "Preprocess/job005/micrographs_ctf.star")) == 2
    assert "5 left out" in outputs.summary
    assert len(read_failed(faulty / "Preprocess/job005")) == 5


def test_a_gain_of_another_size_stops_all(project: Path) -> None:
    write_image(project / "gain.mrc", np.ones((100, 120), np.float32), 2.0)
    with pytest.raises(InputError, match="120 x 100"):
        preprocess(project, gain="gain.mrc")


@pytest.mark.parametrize("where", ["motion", "stack"])
def test_a_full_disk_leaves_out_what_did_not_fit(project: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "somewhere")
    if where == "motion":
        write = _preprocess_stream.write_corrected

        def write_corrected(files, *rest) -> None:
            if files["micrograph_name"].stem == "movie_0002":
                raise full
            write(files, *rest)

        monkeypatch.setattr(_preprocess_stream, "write_corrected", write_corrected)
    else:
        cut = _preprocess_stream.extract_one

        def extract_one(task, *rest):
            if "movie_0002" in task.name:
                raise full
            return cut(task, *rest)

        monkeypatch.setattr(_preprocess_stream, "extract_one", extract_one)
    outputs = preprocess(project)
    assert [Path(one.item).stem for one in outputs.quarantined] == ["movie_0002"]
    assert "No space left on device" in outputs.quarantined[0].reason
    names = read_dataset(project / "Preprocess/job005/particles.star").rows["micrograph_name"]
    assert not any("movie_0002" in name for name in names)


def test_when_no_movie_can_be_used_the_first_reason_is_told(project: Path) -> None:
    (project / "Movies").mkdir()
    write_tiff(project / "Movies/zero.tiff", np.zeros((6, 640, 640), np.uint8), 2.0)
    with pytest.raises(InputError, match="blank"):
        preprocess(project, input="Movies")
    assert read_failed(project / "Preprocess/job005")


def test_options_are_those_of_the_jobs_and_none_is_there_twice() -> None:
    seen: dict[str, str] = {}
    for name, info in PreprocessParameters.model_fields.items():
        for spelling in option_names(name, info):
            assert seen.setdefault(spelling, name) == name
    steps = Steps.of(PreprocessParameters(**(ALL | {"ctf_box": 256, "invert": False, "pick_invert": True})))
    assert steps.pick is not None
    assert steps.extract is not None
    assert (steps.ctf.box, steps.extract.box) == (256, 48)
    assert (steps.pick.invert, steps.extract.invert) == (True, False)
    for step, model in _STEPS.items():
        plain = {name for name, here in _NAMES[step].items() if name == here}
        for name in plain - {"input", "diameter_min", "diameter_max", "box"}:
            assert PreprocessParameters.model_fields[name].default == model.model_fields[name].default
        missing = set(model.model_fields) - set(JobParameters.model_fields) - set(_NAMES[step])
        assert missing <= {"input", "micrographs", "coordinates", "particles", "recenter", "reset_offsets"}


@pytest.mark.parametrize(
    "given", [{}, {"input": "a", "watch": "b"}, {"input": "a", "box": 64}, {"input": "a", "diameter_min": 100.0}]
)
def test_what_cannot_be_together(given: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Steps.of(PreprocessParameters(**given))


def test_the_movies_are_what_tifffile_reads(project: Path) -> None:
    path = project / "Simulate/job000/movies/movie_0001.tiff"
    raw = TiffMovie(path).raw_frames()
    np.testing.assert_array_equal(raw[0], read_tiff(path)[0])
    np.testing.assert_array_equal(raw.astype(np.float32), TiffMovie(path).frames(0, len(raw)))
