"""Running vitreous from a benchmark: to its end, or with one of its ranks killed on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

COMMAND = [sys.executable, "-m", "vitreous", "--quiet"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's ranks compile vitreous anew at each start
_LOOK_S = 2.0  # between looks for ranks: going through all processes takes a core a millisecond and more


def run(project: Path, *words: str, codes: tuple[int, ...] = (0,)) -> int:
    """Run a command to its end; its exit code, which must be one of `codes`."""
    done = subprocess.run(
        [*COMMAND, *words], cwd=project, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode not in codes:
        raise RuntimeError(f"vitreous {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.returncode


def undisturbed(project: Path, words: list[str], job: str) -> None:
    """Run a command to its end, once."""
    if not (project / job / "RELION_JOB_EXIT_SUCCESS").exists():
        run(project, *words, "--o", job)


@dataclass
class Timed:
    """A whole command: seconds on the clock, and CPU seconds of each process that did the work."""

    seconds: float
    cpu: dict[int, float]


def timed(project: Path, *words: str) -> Timed:
    """Run a command to its end and look at its ranks all the while."""
    start = time.monotonic()
    process = subprocess.Popen([*COMMAND, *words], cwd=project, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    cpu: dict[int, float] = {}
    workers: list[psutil.Process] = []
    looked = float("-inf")
    while process.poll() is None:
        if time.monotonic() - looked > _LOOK_S:
            looked, workers = time.monotonic(), _workers(process.pid)
        for one in workers:
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                cpu[one.pid] = times.user + times.system
        time.sleep(0.1)
    seconds = time.monotonic() - start
    if process.returncode:
        raise RuntimeError(f"vitreous {' '.join(words)} ended with {process.returncode}")
    return Timed(seconds, cpu)


def _workers(launcher: int) -> list[psutil.Process]:
    """The ranks; the process itself where there are none."""
    try:
        one = psutil.Process(launcher)
        return one.children() or [one]
    except psutil.Error:
        return []


def seconds_of(project: Path, job: str) -> float:
    """How long a finished job took, without the start of Python."""
    return float(json.loads((project / job / "metrics.json").read_text())["metrics"]["seconds"])


def disturbed(project: Path, words: list[str], when: Callable[[], bool], rank: int | None, number: int) -> int:
    """Run a command and send a signal to one of its ranks (None: to itself) once when() holds; its exit code."""
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=project, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (when() and (rank is None or _rank(process.pid, rank))):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"the moment to disturb vitreous {' '.join(words)} never came")
        time.sleep(0.01)
    target = process.pid if rank is None else _rank(process.pid, rank)
    assert target
    os.kill(target, number)
    return process.wait(timeout=600)


def _rank(launcher: int, rank: int) -> int | None:
    for child in psutil.Process(launcher).children():
        try:
            if child.environ().get("RANK") == str(rank) and child.status() != psutil.STATUS_ZOMBIE:
                return child.pid
        except psutil.Error:
            continue
    return None


KILL, TERM = signal.SIGKILL, signal.SIGTERM
