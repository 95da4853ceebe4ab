"""Jobs shared by ranks: the same result as one process gives, one voice, one exit code, nothing left hanging."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from vitreous.core.errors import LOST
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset, read_tables

COMMAND = [sys.executable, "-m", "vitreous"]
CLASSES = ["--i", "Simulate/particles.star", "--K", "3", "--psi-step", "24", "--offset-range", "2", "--threads", "1"]
CLASSES += ["--particle-diameter", "150"]


def run(project: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *words], cwd=project, capture_output=True, text=True, timeout=300)
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ranks")
    words = ["--n", "60", "--box", "40", "--pixel-size", "5", "--per-micrograph", "20", "--o", "Simulate"]
    run(place, "simulate-particles", *words)
    return place


def classes(project: Path, directory: str, iteration: int) -> tuple[np.ndarray, np.ndarray]:
    root = project / directory / f"run_it{iteration:03d}"
    numbers = read_dataset(Path(f"{root}_data.star")).rows["class_number"]
    return np.asarray(read_image(Path(f"{root}_classes.mrcs"))[0]), numbers


def test_two_and_three_ranks_find_what_one_finds(project: Path) -> None:
    for ranks in (1, 2, 3):
        done = run(project, "class2d", *CLASSES, "--iter", "4", "--o", f"Class2D/of{ranks}", "--ranks", str(ranks))
        assert len(done.stdout.splitlines()) == 2  # one rank speaks
    alone, numbers = classes(project, "Class2D/of1", 4)
    for ranks in (2, 3):
        shared, same = classes(project, f"Class2D/of{ranks}", 4)
        assert np.abs(shared - alone).max() < 1e-4 * np.abs(alone).max()
        np.testing.assert_array_equal(same, numbers)


def group_scales(model: Path) -> np.ndarray:
    return np.asarray(read_tables(model)["model_groups"]["rlnGroupScaleCorrection"], dtype=float)


def test_scales_are_those_of_all_ranks_particles(project: Path) -> None:
    words = ["--scale", "true", "--iter", "3"]
    for ranks in (1, 2):
        run(project, "class2d", *CLASSES, *words, "--o", f"Class2D/scaled{ranks}", "--ranks", str(ranks))
    one, two = (group_scales(project / f"Class2D/scaled{n}/run_it003_model.star") for n in (1, 2))
    assert np.ptp(one) > 1e-3  # they were estimated
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_a_refinement_shared_by_two(project: Path) -> None:
    words = ["--i", "Simulate/particles.star", "--ref", "Simulate/truth.mrc", "--sym", "O", "--threads", "1"]
    words += ["--max-iterations", "3", "--ini-high", "40", "--offset-range", "2", "--healpix-order", "2"]
    for ranks in (1, 2):
        run(project, "refine3d", *words, "--o", f"Refine3D/of{ranks}", "--ranks", str(ranks))
    one, two = (np.asarray(read_image(project / f"Refine3D/of{n}/run_half1_class001_unfil.mrc")[0]) for n in (1, 2))
    assert np.abs(one - two).max() < 1e-4 * np.abs(one).max()


def test_a_fault_of_the_input_is_said_once(project: Path) -> None:
    done = run(project, "class2d", "--i", "no.star", "--K", "2", "--o", "Class2D/none", "--ranks", "2", check=False)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "no.star" in done.stderr


def test_a_job_for_one_process_refuses_ranks(project: Path) -> None:
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    words = ["mask", "--i", "Simulate/truth.mrc", "--o", "MaskCreate/x"]
    done = subprocess.run([*COMMAND, *words], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "one process" in done.stderr


def start_and_kill(
    project: Path, words: list[str], job: str, rank: str
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run of which one rank is killed (SIGKILL) after the first iteration, and all of its ranks."""
    process = subprocess.Popen(words, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (project / job / "checkpoint.npz").exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ranks = psutil.Process(process.pid).children()
    next(one for one in ranks if one.environ().get("RANK") == rank).send_signal(signal.SIGKILL)
    return process, ranks


def test_a_killed_rank_ends_the_run_and_it_goes_on_from_there(project: Path) -> None:
    words = [*COMMAND, "class2d", *CLASSES, "--iter", "12", "--o", "Class2D/killed", "--ranks", "2", "--restarts", "0"]
    process, ranks = start_and_kill(project, words, "Class2D/killed", "1")
    _, said = process.communicate(timeout=60)
    assert process.returncode in (128 + signal.SIGKILL, LOST)
    assert said
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in ranks)
    run(project, "class2d", "--continue", "Class2D/killed", "--ranks", "2")
    run(project, "class2d", *CLASSES, "--iter", "12", "--o", "Class2D/whole", "--ranks", "2")
    ended, whole = classes(project, "Class2D/killed", 12), classes(project, "Class2D/whole", 12)
    np.testing.assert_array_equal(ended[0], whole[0])
    np.testing.assert_array_equal(ended[1], whole[1])


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_run_starts_again_by_itself_after_a_rank_was_killed(project: Path, rank: str) -> None:
    job = f"Class2D/again{rank}"
    words = [*COMMAND, "class2d", *CLASSES, "--iter", "12", "--o", job, "--ranks", "2"]
    process, _ = start_and_kill(project, words, job, rank)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert f"rank {rank} was killed by SIGKILL: all ranks start again (1 of at most 3 times)" in said
    assert "going on after iteration" in said
    run(project, "class2d", *CLASSES, "--iter", "12", "--o", f"{job}whole", "--ranks", "2")
    ended, whole = classes(project, job, 12), classes(project, f"{job}whole", 12)
    np.testing.assert_array_equal(ended[0], whole[0])
    np.testing.assert_array_equal(ended[1], whole[1])
