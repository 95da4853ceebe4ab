"""Jobs whose ranks take items from a queue: the same files as one process leaves, and a killed rank loses nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset

COMMAND = [sys.executable, "-m", "vitreous"]
MOVIES = [
    "motioncorr",
    "--i",
    "Simulate/movies.star",
    "--patch-x",
    "2",
    "--patch-y",
    "2",
    "--j",
    "1",
    "--dose-per-frame",
    "5",
]


def run(project: Path, *words: str) -> str:
    done = subprocess.run([*COMMAND, *words], cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("queue")
    words = ["--n", "6", "--size-x", "640", "--size-y", "640", "--frames", "8", "--particles", "12", "--o", "Simulate"]
    run(place, "simulate-movies", *words, "--pixel-size", "2", "--defocus-min", "12000")
    run(place, *MOVIES, "--o", "MotionCorr/alone")
    return place


def same_files(project: Path, one: str, other: str) -> None:
    first, second = (sorted(p.name for p in (project / job).rglob("*.mrc*")) for job in (one, other))
    assert first == second
    for name in first:
        images = [read_image(next((project / job).rglob(name)))[0] for job in (one, other)]
        np.testing.assert_array_equal(*images)


def test_every_step_shared_by_two_leaves_the_same(project: Path) -> None:
    run(project, *MOVIES, "--o", "MotionCorr/shared", "--ranks", "2")
    same_files(project, "MotionCorr/alone", "MotionCorr/shared")
    ctf = ["ctf", "--i", "MotionCorr/alone/corrected_micrographs.star", "--j", "1"]
    pick = ["autopick", "--diameter-min", "110", "--diameter-max", "150", "--j", "1"]
    cut = ["extract", "--box", "64", "--j", "1"]
    for name, ranks in (("alone", "1"), ("shared", "2")):
        run(project, *ctf, "--o", f"CtfFind/{name}", "--ranks", ranks)
        star = f"CtfFind/{name}/micrographs_ctf.star"
        run(project, *pick, "--i", star, "--o", f"AutoPick/{name}", "--ranks", ranks)
        picks = f"AutoPick/{name}/autopick.star"
        run(project, *cut, "--i", star, "--coordinates", picks, "--o", f"Extract/{name}", "--ranks", ranks)
    same_files(project, "CtfFind/alone", "CtfFind/shared")
    same_files(project, "Extract/alone", "Extract/shared")
    one, two = (read_dataset(project / f"Extract/{name}/particles.star").rows for name in ("alone", "shared"))
    np.testing.assert_array_equal(one["coordinate_x"], two["coordinate_x"])
    np.testing.assert_array_equal(one["defocus_u"], two["defocus_u"])


def test_a_rank_killed_in_the_middle_of_a_movie_loses_nothing(project: Path) -> None:
    words = [*COMMAND, *MOVIES, "--o", "MotionCorr/killed", "--ranks", "2"]
    process = subprocess.Popen(words, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((project / "MotionCorr/killed").glob("rank001.log")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    ranks = psutil.Process(process.pid).children()
    follower = next(one for one in ranks if one.environ().get("RANK") == "1")
    follower.send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "has died" in said
    same_files(project, "MotionCorr/alone", "MotionCorr/killed")
