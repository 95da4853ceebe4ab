"""The program `preprocess`: shared by ranks, killed and gone on with, and with bad movies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vitreous.io.failed import read_failed
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "vitreous"]
SOURCES = Path(__file__).resolve().parents[2] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCES)}
WORDS = [
    "preprocess", "--gain", "Simulate/gain.mrc", "--patch-x", "2", "--patch-y", "2", "--j", "1", "--cpu",
    "--dose-per-frame", "5", "--diameter-min", "110", "--diameter-max", "150", "--box", "80",
]  # fmt: skip


def run(project: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [*COMMAND, *words], cwd=project, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stream")
    words = ["--n", "6", "--size-x", "640", "--size-y", "640", "--frames", "8", "--particles", "12", "--o", "Simulate"]
    run(place, "simulate-movies", *words, "--pixel-size", "2", "--defocus-min", "12000")
    run(place, *WORDS, "--i", "Simulate/movies.star", "--o", "Preprocess/alone")
    return place


def same(project: Path, other: str) -> None:
    one, two = project / "Preprocess/alone", project / other
    names = sorted(path.name for path in one.rglob("*.mrc*"))
    assert names == sorted(path.name for path in two.rglob("*.mrc*"))
    for name in names:
        np.testing.assert_array_equal(*(read_image(next(place.rglob(name)))[0] for place in (one, two)))
    for star in ("micrographs_ctf.star", "particles.star"):
        first, second = (read_dataset(place / star).rows for place in (one, two))
        for column in first:
            if first[column].dtype != object:
                np.testing.assert_array_equal(first[column], second[column])


def test_two_ranks_leave_the_same(project: Path) -> None:
    run(project, *WORDS, "--i", "Simulate/movies.star", "--o", "Preprocess/shared", "--ranks", "2")
    same(project, "Preprocess/shared")


def test_killed_it_goes_on_with_what_is_missing(project: Path) -> None:
    words = [*COMMAND, *WORDS, "--i", "Simulate/movies.star", "--o", "Preprocess/killed"]
    process = subprocess.Popen(words, cwd=project, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    job = project / "Preprocess/killed"
    deadline = time.monotonic() + 120
    while len(list(job.rglob("*_autopick.star"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in job.rglob("movie_000?.mrc")}
    assert 1 < len(done) < 6
    run(project, "preprocess", "--continue", "Preprocess/killed")
    same(project, "Preprocess/killed")
    first = min(done)
    assert first.stat().st_mtime_ns == done[first]


def test_bad_movies_make_exit_code_3_and_class2d_takes_the_rest(project: Path) -> None:
    (project / "Movies").mkdir()
    for number in range(1, 5):
        shutil.copy(project / f"Simulate/movies/movie_000{number}.tiff", project / "Movies")
    with (project / "Movies/movie_0002.tiff").open("r+b") as stream:
        stream.truncate(50000)
    said = run(project, *WORDS, "--i", "Movies", "--pixel-size", "2", "--o", "Preprocess/job010", code=3)
    assert "1 left out" in said
    job = project / "Preprocess/job010"
    assert [item for item, _ in read_failed(job)] == ["Movies/movie_0002.tiff"]
    assert "truncated" in (job / "report.html").read_text()
    words = ["--i", "Preprocess/job010/particles.star", "--K", "2", "--iter", "2", "--particle-diameter", "150"]
    run(project, "class2d", *words, "--j", "1", "--cpu")
