"""Refinements whose ranks add up through files (RELION's "via disc"): the network's result, also after a kill."""

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
FILES = ["--dont_combine_weights_via_disc", "false"]
SHARED = ["--i", "Simulate/particles.star", "--threads", "1", "--ranks", "2", "--offset-range", "2"]
MAPS = ["--ref", "Simulate/truth.mrc", "--ini-high", "40", "--healpix-order", "1"]
JOBS = {
    "class2d": ["--K", "3", "--psi-step", "24", "--iter", "3"],
    "class3d": [*MAPS, "--K", "2", "--iter", "2"],
    "refine3d": [*MAPS, "--sym", "O", "--max-iterations", "3"],
}
RESULTS = {
    "class2d": "run_it003_classes.mrcs",
    "class3d": "run_it002_class001.mrc",
    "refine3d": "run_half1_class001_unfil.mrc",
}

pytestmark = pytest.mark.slow


def run(project: Path, *words: str) -> str:
    done = subprocess.run([*COMMAND, *words], cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("files")
    words = ["--n", "60", "--box", "40", "--pixel-size", "5", "--per-micrograph", "20", "--o", "Simulate"]
    run(place, "simulate-particles", *words)
    return place


@pytest.mark.parametrize("job", JOBS)
def test_the_same_as_over_the_network(project: Path, job: str) -> None:
    words = [job, *SHARED, *JOBS[job]]
    run(project, *words, "--o", f"{job}/network")
    run(project, *words, *FILES, "--o", f"{job}/files")
    network, files = (np.asarray(read_image(project / job / how / RESULTS[job])[0]) for how in ("network", "files"))
    assert np.abs(files - network).max() <= 1e-6 * np.abs(network).max()
    assert not (project / job / "files/sums").exists()


def test_a_rank_that_is_killed_among_the_files_loses_nothing(project: Path) -> None:
    words = ["class2d", *SHARED, *JOBS["class2d"], *FILES, "--iter", "12"]
    run(project, *words, "--o", "class2d/whole")
    job = project / "class2d/killed"
    process = subprocess.Popen(
        [*COMMAND, *words, "--o", "class2d/killed"], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not ((job / "checkpoint.npz").exists() and list(job.glob("sums/*/*.part"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    ranks = psutil.Process(process.pid).children()
    next(one for one in ranks if one.environ().get("RANK") == "1").send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert b"all ranks start again" in said
    killed, whole = (project / f"class2d/{name}" for name in ("killed", "whole"))
    classes = [read_image(place / "run_it012_classes.mrcs")[0] for place in (killed, whole)]
    numbers = [read_dataset(place / "run_it012_data.star").rows["class_number"] for place in (killed, whole)]
    np.testing.assert_array_equal(*classes)
    np.testing.assert_array_equal(*numbers)
    assert not (job / "sums").exists()
