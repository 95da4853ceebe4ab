from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.io.failed import read_failed
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset, read_table
from vitreous.io.tiff import write_tiff
from vitreous.job import Context
from vitreous.jobs._preprocess_watch import Folder
from vitreous.jobs.preprocess import Preprocess

SOURCES = Path(__file__).resolve().parents[3] / "src"
N, FRAMES = 256, 4
AGE = 0.4
GIVEN = {"watch": "Movies", "watch_age": AGE, "dose_per_frame": 1.0, "patch_x": 1, "patch_y": 1, "pixel_size": 1.2}


def movie(seed: int) -> np.ndarray:
    """Frames whose sum shows Thon rings."""
    rng = np.random.default_rng(seed)
    k2 = np.fft.fftfreq(N, 1.2)[:, None] ** 2 + np.fft.rfftfreq(N, 1.2) ** 2
    rings = np.sin(np.pi * 0.0197 * 12000 * k2 + 0.1) * np.exp(-20 * k2)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((N, N))) * rings)
    return rng.poisson(np.clip(4 * (1 + 0.3 * field / field.std()), 0, None), (FRAMES, N, N)).astype(np.uint8)


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("movies")
    for number in range(4):
        write_tiff(place / f"m{number}.tiff", movie(number), 1.2)
    return [place / f"m{number}.tiff" for number in range(4)]


def context(project: Path, resume: bool = False) -> Context:
    directory = project / "Preprocess/job001"
    directory.mkdir(parents=True, exist_ok=True)
    (project / "Movies").mkdir(exist_ok=True)
    return Context(project, directory, torch.device("cpu"), 1, 1, 2 << 30, resume)


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def test_a_movie_is_complete_when_it_rests_and_can_be_read(tmp_path: Path, movies: list[Path]) -> None:
    folder = Folder(tmp_path, AGE)
    shutil.copy(movies[0], tmp_path / "a.tiff")
    half = movies[1].read_bytes()[:20000]
    (tmp_path / "b.tiff").write_bytes(half)
    (tmp_path / "note.txt").write_text("no movie")
    (tmp_path / ".hidden.tiff").write_bytes(half)
    assert folder.complete() == []
    time.sleep(1.1 * AGE)
    assert [path.name for path in folder.complete()] == ["a.tiff"]
    assert folder.complete() == []
    shutil.copy(movies[1], tmp_path / "b.tiff")
    assert folder.complete() == []
    time.sleep(1.1 * AGE)
    assert [path.name for path in folder.complete()] == ["b.tiff"]
    shutil.copy(movies[2], tmp_path / "a.tiff")
    folder.complete()
    time.sleep(1.1 * AGE)
    assert [path.name for path in folder.complete()] == ["a.tiff"], "another movie of that name"


def test_a_file_that_keeps_its_old_time_while_it_grows_is_waited_for(tmp_path: Path, movies: list[Path]) -> None:
    folder, path = Folder(tmp_path, AGE), tmp_path / "a.tiff"
    whole = movies[0].read_bytes()
    for size in (1000, 30000, len(whole)):
        path.write_bytes(whole[:size])
        os.utime(path, (1e9, 1e9))
        assert folder.complete() == []
        time.sleep(0.5 * AGE)
    time.sleep(0.7 * AGE)
    assert folder.complete() == [path]


def test_what_stays_broken_is_given_out_in_the_end(tmp_path: Path, movies: list[Path]) -> None:
    folder = Folder(tmp_path, 0.1)
    (tmp_path / "a.tiff").write_bytes(movies[0].read_bytes()[:20000])
    until(lambda: bool(folder.complete()), 5)


def test_movies_that_come_one_by_one(tmp_path: Path, movies: list[Path]) -> None:
    """One after the other, one in pieces, one that stays cut short; the first of all cannot be read."""
    here = context(tmp_path)
    target = tmp_path / "Movies"
    stream = here.directory / "stream.star"
    whole = movies[1].read_bytes()
    looks: list[int] = []

    def microscope() -> None:
        (target / "broken.tiff").write_bytes(whole[:9000])
        until(lambda: bool(read_failed(here.directory)))
        shutil.copy(movies[0], target)
        with (target / "m1.tiff").open("wb") as slow:
            for start in range(0, len(whole), len(whole) // 8):
                slow.write(whole[start : start + len(whole) // 8])
                slow.flush()
                time.sleep(0.6 * AGE)
                looks.append(len(list((here.directory).rglob("m1.*"))))
        (target / "cut.tiff").write_bytes(whole[: len(whole) // 2])
        shutil.copy(movies[2], target)
        shutil.copy(movies[3], target)

    copying = threading.Thread(target=microscope)
    copying.start()
    outputs = Preprocess().run(Preprocess.Parameters(**GIVEN, stop_after_idle=15 * AGE / 60), here)
    copying.join()
    assert not any(looks), "it was taken before it was whole"
    names = {
        Path(str(name)).stem for name in read_dataset(here.directory / "micrographs_ctf.star").rows["micrograph_name"]
    }
    assert names == {"m0", "m1", "m2", "m3"}
    assert {Path(one.item).stem for one in outputs.quarantined} == {"broken", "cut"}
    assert all("truncated" in one.reason or "no whole TIFF" in one.reason for one in outputs.quarantined)
    table = read_table(stream, "movies")
    assert [Path(str(name)).stem for name in table["movie_name"]][:3] == ["broken", "m0", "m1"]
    assert outputs.metrics["n_movies"] == 4


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    here = context(tmp_path)
    (tmp_path / "Movies").rmdir()
    with pytest.raises(InputError, match="no such folder"):
        Preprocess().run(Preprocess.Parameters(**GIVEN), here)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_it_is_told_and_goes_on(tmp_path: Path, movies: list[Path], number: signal.Signals) -> None:
    job = tmp_path / "Preprocess/job001"
    target = tmp_path / "Movies"
    target.mkdir()
    shutil.copy(movies[0], target)
    words = ["preprocess", "--o", "Preprocess/job001", "--cpu", "--j", "1"]
    for name, value in GIVEN.items():
        words += [f"--{name}", str(value)]
    program = [sys.executable, "-m", "vitreous"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    process = subprocess.Popen([*program, *words], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    until(lambda: (job / "stream.star").exists() or process.poll() is not None, 120)
    page = job / "report.html"
    until(lambda: page.exists() or process.poll() is not None)
    assert 'http-equiv="refresh"' in page.read_text()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert len(read_dataset(job / "micrographs_ctf.star")) == 1
    before = (job / "Movies/m0.mrc").stat().st_mtime_ns
    shutil.copy(movies[1], target)
    more = ["preprocess", "--continue", "Preprocess/job001", "--stop-after-idle", str(6 * AGE / 60)]
    done = subprocess.run([*program, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(read_dataset(job / "micrographs_ctf.star")) == 2
    assert (job / "Movies/m0.mrc").stat().st_mtime_ns == before
    assert 'http-equiv="refresh"' not in page.read_text()


@pytest.mark.slow
def test_two_ranks_take_what_comes_and_one_is_killed(tmp_path: Path, movies: list[Path]) -> None:
    """Six movies, one by one; the second rank dies with a movie in hand, or waiting for one."""
    target, job = tmp_path / "Movies", tmp_path / "Preprocess/job001"
    target.mkdir()
    program = [sys.executable, "-m", "vitreous", "preprocess", "--cpu", "--j", "1"]
    words = [word for name, value in GIVEN.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    watching = [*program, *words, "--o", "Preprocess/job001", "--ranks", "2", "--stop-after-idle", "0.2"]
    process = subprocess.Popen(watching, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    until(lambda: (job / "rank001.log").exists() or process.poll() is not None, 120)
    for number in range(6):
        shutil.copy(movies[number % 4], target / f"m{number}.tiff")
        until(lambda n=number: len(list(job.rglob("m?_ctf.star"))) > n - 2 or process.poll() is not None)  # type: ignore[misc]
        if number == 2:
            ranks = psutil.Process(process.pid).children()
            next(one for one in ranks if one.environ().get("RANK") == "1").send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "has died" in said
    assert len(read_dataset(job / "micrographs_ctf.star")) == 6
    alone = [*program, "--i", "Movies", *words[4:], "--o", "Preprocess/job002"]
    done = subprocess.run(alone, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    one, two = (read_dataset(job.with_name(name) / "micrographs_ctf.star").rows for name in ("job001", "job002"))
    np.testing.assert_array_equal(one["defocus_u"], two["defocus_u"])
    for number in range(6):
        images = [read_image(job.with_name(name) / f"Movies/m{number}.mrc")[0] for name in ("job001", "job002")]
        np.testing.assert_array_equal(*images)
