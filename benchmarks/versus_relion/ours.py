"""A vitreous job as a user runs it: the command line in a process of its own, start-up counted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.versus_relion.measure import Cost, measured


def run(project: Path, job: str, directory: str, options: Mapping[str, Any], *, threads: int = 2) -> Cost:
    """Run `vitreous JOB` in a project; its output goes to directory/run.out, its files to directory.

    options: by name without dashes; flags that take a value are given as true or false.
    """
    words: list[str] = []
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    command = [sys.executable, "-m", "vitreous", job, "--o", directory, "--threads", str(threads), *words]
    # no program of ours may use more threads than it was given
    env = {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    return measured(command, project, project / directory / "run.out", env)
