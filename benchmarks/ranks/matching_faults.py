"""What template matching over ranks loses where one of them is killed: micrographs whose maxima are not the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks.ranks.runs import KILL, disturbed, run, undisturbed

from vitreous.io.mrc import read_image

SEARCH = ["match-template", "--i", "Field/truth_micrographs.star", "--template", "Field/truth.mrc", "--j", "1"]
SEARCH += ["--psi-step", "16", "--theta-step", "16", "--defocus-range", "200", "--high-frequency", "8"]
SEARCH += ["--stretch", "600", "--ranks", "2"]
FIELD = ["--n", "2", "--size-x", "256", "--size-y", "256", "--pixel-size", "3", "--particles", "3"]

# When a rank is killed: what has to be there, as a pattern below the job's directory.
PHASES = {"while it starts": "", "in a search": "stretches/*", "when one micrograph is done": "**/*_mip.mrc"}


def matching_faults() -> dict[str, Callable[[Path], int]]:
    """Each rank, killed in each phase."""
    return {
        f"search: rank {rank} killed {phase}": lambda project, r=rank, p=phase: _killed(project, r, p)
        for rank in (0, 1)
        for phase in PHASES
    }


def _killed(project: Path, rank: int, phase: str) -> int:
    undisturbed(project, ["simulate-micrographs", *FIELD], "Field")
    undisturbed(project, SEARCH, "MatchTemplate/whole")
    job = f"MatchTemplate/{phase.replace(' ', '_')}{rank}"
    pattern = PHASES[phase]
    words = [*SEARCH, "--o", job]
    code = disturbed(project, words, lambda: not pattern or any((project / job).glob(pattern)), rank, KILL)
    if code:  # before there was a directory to go on in
        run(project, *words, "--continue")
    ended, whole = (_maxima(project / one) for one in (job, "MatchTemplate/whole"))
    return sum(name not in ended or not np.array_equal(ended[name], whole[name]) for name in whole)


def _maxima(job: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(read_image(path)[0]) for path in job.rglob("*_mip.mrc")}
