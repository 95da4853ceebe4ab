"""Debian's relion_refine with given options in a project directory, and its cost."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.versus_relion.measure import Cost, measured


def is_installed() -> bool:
    return shutil.which("relion_refine") is not None


def refine(
    project: Path,
    directory: str,
    options: Mapping[str, Any],
    *,
    threads: int = 2,
    pool: int = 30,
    ranks: int = 1,
) -> Cost:
    """Run relion_refine (relion_refine_mpi for ranks > 1, as auto-refine wants: a leader and a rank for each half).

    directory: where its run_* go, relative to the project. options: by name without dashes; True for a flag, False
    or None to leave it out. Its output goes to directory/run.out.
    """
    (project / directory).mkdir(parents=True, exist_ok=True)
    program = ["relion_refine"]
    if ranks > 1:
        program = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), "relion_refine_mpi"]
    command = [*program, "--o", f"{directory}/run", "--j", str(threads), "--pool", str(pool)]
    command += ["--dont_combine_weights_via_disc", *_arguments(options)]
    return measured(command, project, project / directory / "run.out")


def _arguments(options: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        if value is False or value is None:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return words
