"""Several ranks are started without importing the job; every other line goes its usual way."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest

from vitreous.app import early_ranks, job_command
from vitreous.app.early_ranks import start_early
from vitreous.job import catalogue, find


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any, dict[str, Any]]]:
    """What would have been started."""
    calls: list[tuple[int, Any, dict[str, Any]]] = []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(early_ranks, "share_out", lambda ranks, running, **how: calls.append((ranks, running, how)))
    return calls


def test_the_catalogue_knows_which_jobs_are_shared() -> None:
    for name, entry in catalogue().items():
        job = find(name)
        assert (entry.shared, entry.queued) == (job.shared, job.queued), name


def test_ranks_are_read_among_options_of_the_job(started: list[Any]) -> None:
    words = "refine3d --i a.star --zero_mask true --K 3 --j 2 --gpu 2:3 --ranks 4 -o Refine3D/x --restarts 1 --seed 5"
    start_early(words.split())
    ranks, running, how = started[0]
    assert (ranks, how) == (4, {"spared": False, "restarts": 1})
    assert (running.threads, running.gpu, running.seed) == (2, "2:3", 5)


def test_a_queue_spares_its_ranks(started: list[Any]) -> None:
    start_early(["motioncorr", "--i", "movies.star", "--ranks=2", "--cpu"])
    assert started[0][1].cpu
    assert started[0][2] == {"spared": True, "restarts": 3}


@pytest.mark.parametrize(
    "line",
    [
        "refine3d --i a.star",
        "refine3d --ranks 1",
        "refine3d --ranks two",
        "refine3d --ranks 2 --j -1",
        "refine3d --ranks 2 --dump-yaml",
        "class2d --ranks 2 --help",
        "mask --i map.mrc --ranks 2",
        "nothing --ranks 2",
    ],
)
def test_every_other_line_is_left_to_the_job(line: str, started: list[Any]) -> None:
    start_early(line.split())
    assert not started


def test_the_exit_code_is_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr("vitreous.runtime.launch.run_ranks", lambda *args, **how: 75)
    assert early_ranks.share_out is job_command.share_out
    with pytest.raises(click.exceptions.Exit) as caught:
        start_early(["ctf", "--i", "mics.star", "--ranks", "2", "--cpu"])
    assert caught.value.exit_code == 75


def test_ranks_of_a_queue_start_without_what_only_some_runs_need() -> None:
    modules = [catalogue()[name].module for name in ("motioncorr", "ctf", "autopick", "extract", "preprocess")]
    code = f"import sys, {', '.join(modules)}; print({{'scipy.stats', 'matplotlib'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
