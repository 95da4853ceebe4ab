"""Jobs through a real SLURM: two virtual nodes on this machine (cluster.sh; Debian's slurm-wlm and munge)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from vitreous.io.mrc import read_image
from vitreous.pipeline import slurm
from vitreous.pipeline.project import exit_marker

CLUSTER = Path(__file__).with_name("cluster.sh")
REFINE = ["--i", "Simulate/particles.star", "--ref", "Simulate/truth.mrc", "--j", "1", "--ini-high", "40"]
REFINE += ["--offset-range", "3", "--healpix-order", "3", "--max-iterations", "6"]
LONGER = ["--healpix-order", "4", "--offset-range", "6"]
MATCH = ["--i", "Field/truth_micrographs.star", "--template", "Field/truth.mrc", "--j", "1", "--stretch", "600"]
MATCH += ["--psi-step", "12", "--theta-step", "12", "--defocus-range", "200", "--high-frequency", "8"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("slurmctld") is None or shutil.which("munged") is None or os.geteuid() != 0,
        reason="needs root and Debian's slurm-wlm and munge",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("slurm")
    subprocess.run([CLUSTER, "start", place], check=True, timeout=60)
    os.environ["SLURM_CONF"] = str(place / "slurm.conf")
    yield place
    subprocess.run([CLUSTER, "stop", place], check=False)
    del os.environ["SLURM_CONF"]
    assert not left_of(place)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, cluster: Path) -> Path:
    place = tmp_path_factory.mktemp("project")
    words = ["--n", "60", "--box", "40", "--pixel-size", "5", "--per-micrograph", "20", "--o", "Simulate"]
    run(place, "simulate-particles", *words)
    run(place, "refine3d", *REFINE, "--ranks", "2", "--o", "Refine3D/whole")
    field = ["--n", "1", "--size-x", "256", "--size-y", "256", "--pixel-size", "3", "--particles", "3", "--o", "Field"]
    run(place, "simulate-micrographs", *field)
    run(place, "match-template", *MATCH, "--ranks", "2", "--o", "MatchTemplate/whole")
    return place


def left_of(place: Path) -> list[str]:
    """Daemons and steps of the cluster that live on."""
    left = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.name().startswith(("slurm", "munge")) and one.environ().get("SLURM_CONF", "").startswith(str(place)):
                left.append(f"{one.pid} {one.name()}")
    return left


def run(project: Path, *words: str) -> str:
    command = [sys.executable, "-m", "vitreous", *words]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def half_map(project: Path, job: str) -> np.ndarray:
    return np.asarray(read_image(project / job / "run_half1_class001_unfil.mrc")[0])


def wait_until(true: object, seconds: float, directory: Path) -> None:
    """Until true() holds; a job's own words where it does not come to that."""
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        words = (directory / "slurm.out").read_text() if (directory / "slurm.out").exists() else "no output"
        assert time.monotonic() < deadline, f"{run(directory.parents[1], 'status')}\n{words[-3000:]}"
        time.sleep(0.3)


def submitted(project: Path, name: str, *words: str) -> Path:
    run(project, "submit", "refine3d", *REFINE, "--nodes", "2", "--o", f"Refine3D/{name}", *words)
    return project / "Refine3D" / name


def matched(project: Path, name: str, *words: str) -> Path:
    run(project, "submit", "match-template", *MATCH, "--nodes", "2", "--o", f"MatchTemplate/{name}", *words)
    return project / "MatchTemplate" / name


def maxima(directory: Path) -> np.ndarray:
    """The map of greatest correlations, which does not depend on who searched what."""
    return np.asarray(read_image(next(directory.rglob("*_mip.mrc")))[0])


def kill_node(cluster: Path, job: Path) -> None:
    """Kill n2 with all that runs there, wait until SLURM has seen it, and bring it back."""
    subprocess.run([CLUSTER, "kill-node", cluster, "n2"], check=True)
    wait_until(lambda: "n2" not in up_nodes(), 60, job)
    subprocess.run([CLUSTER, "start-node", cluster, "n2"], check=True)


def ended(directory: Path) -> bool:
    return exit_marker(directory) == "Succeeded"


def test_a_refinement_over_two_nodes(project: Path) -> None:
    job = submitted(project, "nodes")
    wait_until(lambda: ended(job), 120, job)
    assert "2 ranks share the work" in (job / "run.log").read_text()
    np.testing.assert_array_equal(half_map(project, "Refine3D/nodes"), half_map(project, "Refine3D/whole"))


def test_a_node_is_killed_and_the_job_ends_all_the_same(project: Path, cluster: Path) -> None:
    job = submitted(project, "killed", "--requeue")
    wait_until(lambda: (job / "checkpoint.npz").exists(), 90, job)
    kill_node(cluster, job)
    wait_until(lambda: ended(job), 300, job)
    log = (job / "run.log").read_text()
    assert log.count("2 ranks share the work") >= 2
    assert "going on after iteration" in log
    np.testing.assert_array_equal(half_map(project, "Refine3D/killed"), half_map(project, "Refine3D/whole"))


def test_a_search_over_two_nodes(project: Path) -> None:
    job = matched(project, "nodes")
    wait_until(lambda: ended(job), 240, job)
    assert "2 ranks share the work" in (job / "run.log").read_text()
    np.testing.assert_array_equal(maxima(job), maxima(project / "MatchTemplate/whole"))


def test_a_search_goes_on_without_the_node_that_is_killed(project: Path, cluster: Path) -> None:
    job = matched(project, "killed")
    wait_until(lambda: list(job.rglob("stretches/*")), 120, job)
    kill_node(cluster, job)
    wait_until(lambda: ended(job), 300, job)
    log = (job / "run.log").read_text()
    assert log.count("2 ranks share the work") == 1  # the first rank was never started again
    assert "has died" in log
    np.testing.assert_array_equal(maxima(job), maxima(project / "MatchTemplate/whole"))


def test_at_the_time_limit_it_goes_back_to_the_queue_and_on(project: Path) -> None:
    job = submitted(project, "limited", "--requeue", "--time", "1", "--warn", "45")
    # Where it is told to stop before it has begun (a busy machine) it goes back at once: SLURM waits two minutes then.
    wait_until(lambda: (job / "RELION_JOB_EXIT_ABORTED").exists() or ended(job), 400, job)
    wait_until(lambda: ended(job), 300, job)
    log = (job / "run.log").read_text()
    assert "stopped by SIGTERM" in log
    assert "going on after iteration" in log
    np.testing.assert_array_equal(half_map(project, "Refine3D/limited"), half_map(project, "Refine3D/whole"))


def test_status_says_why_it_waits_and_cancel_takes_it_out(project: Path) -> None:
    first, second = (submitted(project, name, *LONGER, "--sbatch=--exclusive") for name in ("job101", "job102"))
    wait_until(lambda: "running for" in run(project, "status"), 60, first)
    assert "queued: " in run(project, "status")
    run(project, "cancel", "Refine3D/job101", "Refine3D/job102")
    numbers = [slurm.number_of(one) or 0 for one in (first, second)]
    wait_until(lambda: all(one.ended for one in slurm.states(numbers).values()), 60, first)
    assert exit_marker(second) == "Aborted"
    assert not ended(first)


def up_nodes() -> str:
    words = ["sinfo", "--noheader", "--Node", "--states=idle,alloc,mixed,completing", "--format=%N"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
