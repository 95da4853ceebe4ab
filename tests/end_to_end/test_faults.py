"""What goes wrong at a microscope, in one run: each bad movie is named with its reason, the rest is done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.failed import read_failed
from vitreous.io.movies import MrcMovie
from vitreous.io.mrc import write_image
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.io.tiff import write_tiff
from vitreous.job import Context, Outputs
from vitreous.jobs import _motioncorr_movie
from vitreous.jobs.ctf import Ctf
from vitreous.jobs.motioncorr import Motioncorr

N, N_FRAMES = 192, 5
SOURCES = Path(__file__).resolve().parents[2] / "src"


def movie(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    k2 = np.fft.fftfreq(N)[:, None] ** 2 + np.fft.rfftfreq(N) ** 2
    specimen = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((N, N))) * np.exp(-20 * k2))
    return rng.poisson(np.clip(3 * (1 + 0.3 * specimen / specimen.std()), 0, None), (N_FRAMES, N, N)).astype(np.uint8)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_project(path: Path) -> dict[str, str]:
    """Movies good and bad; returns a word of the reason for each bad one."""
    (path / "Movies").mkdir()
    for name, frames in (("good1", movie(1)), ("good2", movie(2)), ("cut", movie(3)), ("size", movie(4)[:, :128])):
        write_tiff(path / f"Movies/{name}.tif", frames, 1.2)
    cut(path / "Movies/cut.tif")
    write_tiff(path / "Movies/zero.tif", np.zeros((N_FRAMES, N, N), np.uint8), 1.2)
    nan = movie(5).astype(np.float32)
    nan[2, 30, 40] = np.nan
    write_tiff(path / "Movies/nan.tif", nan, 1.2)
    reasons = {"cut": "truncated", "size": "192 x 128 pixels, not 192 x 192", "zero": "5 of 5 frames are blank"}
    reasons |= {"nan": "NaN", "gone": "No such file"}
    names = [f"Movies/{name}.tif" for name in ("good1", *reasons, "good2")]
    optics = Table({"optics_group_name": ["g"], "optics_group": [1], "movie_pixel_size": [1.2]})
    optics = optics.with_columns(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    rows = Table({"movie_name": names}).with_columns(optics_group=1)
    write_dataset(path / "movies.star", Dataset("movies", optics, rows))
    return reasons


def test_the_program_names_them_all_and_exits_3(tmp_path: Path) -> None:
    reasons = make_project(tmp_path)
    words = ["motioncorr", "--i", "movies.star", "--o", "MotionCorr/job002"]
    words += ["--dose-per-frame", "1", "--patch-x", "1", "--patch-y", "1", "--cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "vitreous", *words], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCES)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "5 left out" in done.stdout
    job = tmp_path / "MotionCorr/job002"
    failed = read_failed(job)
    assert [item for item, _ in failed] == [f"Movies/{name}.tif" for name in reasons]
    for (_, reason), word in zip(failed, reasons.values(), strict=True):
        assert word in reason
    done_names = [
        Path(str(name)).stem for name in read_dataset(job / "corrected_micrographs.star").rows["micrograph_name"]
    ]
    assert done_names == ["good1", "good2"]
    assert (job / "RELION_JOB_EXIT_SUCCESS").exists()
    assert not list(job.rglob("*.tmp*"))


def context(project: Path) -> Context:
    directory = project / "MotionCorr/job002"
    directory.mkdir(parents=True, exist_ok=True)
    return Context(project, directory, torch.device("cpu"), 1, 1, 4 << 30)


def run(project: Path) -> Outputs:
    params = Motioncorr.Parameters(input="Movies/*.mrcs", dose_per_frame=1.0, patch_x=1, patch_y=1)
    return Motioncorr().run(params, context(project))


def make_movies(path: Path, names: str) -> None:
    (path / "Movies").mkdir()
    for number, name in enumerate(names):
        write_image(path / f"Movies/{name}.mrcs", movie(number).astype(np.float32), 1.2)


@pytest.mark.parametrize("how", [Path.unlink, cut])
def test_a_file_that_goes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[Path], None]
) -> None:
    """Taken away, or cut short, after its second frame; a memory map of it would have killed the process."""
    make_movies(tmp_path, "abc")
    read = MrcMovie.frames

    def frames(self: MrcMovie, start: int, stop: int) -> np.ndarray:
        if self.path.stem == "b" and start == 2 and self.path.exists() and self.path.stat().st_size > N * N * 4 * 3:
            how(self.path)
        return read(self, start, stop)

    monkeypatch.setattr(MrcMovie, "frames", frames)
    outputs = run(tmp_path)
    assert [(one.item, "cannot be read" in one.reason or "truncated" in one.reason or "cut short" in one.reason)
            for one in outputs.quarantined] == [("Movies/b.mrcs", True)]  # fmt: skip
    assert outputs.metrics["n_movies"] == 2


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The movie whose sum does not fit is named, leaves nothing half written, and the next one is tried."""
    make_movies(tmp_path, "abc")
    write = _motioncorr_movie.write_image

    def full(path: Path, *args: object, **kwargs: object) -> None:
        if path.name == "b_PS.mrc":
            raise OSError(28, "No space left on device", str(path))
        write(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(_motioncorr_movie, "write_image", full)
    outputs = run(tmp_path)
    assert [one.item for one in outputs.quarantined] == ["Movies/b.mrcs"]
    assert "No space left on device" in outputs.quarantined[0].reason
    assert not (tmp_path / "MotionCorr/job002/Movies/b.star").exists()  # so a resumed run does it again


def test_nothing_left_still_says_why_for_each(tmp_path: Path) -> None:
    (tmp_path / "Movies").mkdir()
    for name in "ab":
        write_image(tmp_path / f"Movies/{name}.mrcs", np.zeros((N_FRAMES, N, N), np.float32), 1.2)
    with pytest.raises(InputError, match="none of its 2 movies"):
        run(tmp_path)
    failed = read_failed(tmp_path / "MotionCorr/job002")
    assert [item for item, _ in failed] == ["Movies/a.mrcs", "Movies/b.mrcs"]
    assert all("frames are blank" in reason for _, reason in failed)


def test_one_blank_frame_is_lived_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_movies(tmp_path, "a")
    frames = movie(0).astype(np.float32)
    frames[2] = 0.0
    write_image(tmp_path / "Movies/a.mrcs", frames, 1.2)
    outputs = run(tmp_path)
    assert not outputs.quarantined
    assert "1 of its 5 frames are blank" in caplog.text
    assert outputs.metrics["motion_total_max_A"] < 3.0  # it stands still; the blank frame is not thrown away


def test_ctf_of_files_that_are_wrong(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    write_image(tmp_path / "noise.mrc", rng.standard_normal((256, 256)).astype(np.float32), 1.2)
    write_image(tmp_path / "zero.mrc", np.zeros((256, 256), np.float32), 1.2)
    write_image(tmp_path / "cut.mrc", rng.standard_normal((256, 256)).astype(np.float32), 1.2)
    cut(tmp_path / "cut.mrc")
    optics = Table({"optics_group_name": ["g"], "optics_group": [1], "micrograph_pixel_size": [1.2]})
    optics = optics.with_columns(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    names = ["noise.mrc", "zero.mrc", "cut.mrc", "gone.mrc"]
    write_dataset(
        tmp_path / "mics.star",
        Dataset("micrographs", optics, Table({"micrograph_name": names}).with_columns(optics_group=1)),
    )
    directory = tmp_path / "CtfFind/job003"
    directory.mkdir(parents=True)
    with pytest.raises(InputError, match="no CTF could be fitted to any of 4"):
        Ctf().run(
            Ctf.Parameters(input="mics.star", box=128), Context(tmp_path, directory, torch.device("cpu"), 1, 1, 4 << 30)
        )
    reasons = dict(read_failed(directory))
    assert list(reasons) == names
    for name, word in zip(names, ("no Thon rings", "constant", "bytes", "is not there"), strict=True):
        assert word in reasons[name], reasons[name]
