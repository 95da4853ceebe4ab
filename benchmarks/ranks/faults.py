"""What is lost when a run comes to grief: items of the result that are missing or differ from an undisturbed run's.

Each fault is a run that is disturbed, goes on by itself or is started again with --continue, and is then compared.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks.ranks.matching_faults import matching_faults
from benchmarks.ranks.runs import KILL, TERM, disturbed, run, undisturbed
from benchmarks.ranks.scaling import CLASSES, MOVIES, REFINE, class_numbers, half_map

from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset

ITERATIONS = 12
CLASSIFY = [*CLASSES, "--iter", str(ITERATIONS), "--ranks", "2"]


def faults(project: Path, named: str = "") -> dict[str, int]:
    """Lost items by fault. Those that need a disk that fills (root, tmpfs) are left out where they cannot be had.

    named: only faults with these words in their name.
    """
    cases: dict[str, Callable[[Path], int]] = {}
    for rank in (0, 1):
        cases[f"classification: rank {rank} killed while it starts"] = lambda p, r=rank: _classes(p, f"start{r}", r)
        cases[f"classification: rank {rank} killed in an iteration"] = lambda p, r=rank: _classes(p, f"iterating{r}", r)
        cases[f"classification: rank {rank} killed while copying to scratch"] = lambda p, r=rank: _scratch(p, r)
        cases[f"movies: rank {rank} killed in a movie"] = lambda p, r=rank: _movies(p, r)
    cases["classification: SIGTERM"] = _terminated
    cases["classification: stale copy on scratch"] = _stale
    cases["classification: memory for hardly more than one image"] = _ceiling
    cases |= matching_faults()
    if os.geteuid() == 0:
        cases["classification: scratch disk too small"] = _scratch_small
        cases["movies: output disk full"] = _output_full
        cases["refinement: output disk full"] = _refinement_full
    found = {}
    for name, case in [one for one in cases.items() if named in one[0]]:
        found[name] = case(project)
        print(f"{name}: {found[name]} lost", flush=True)
    return found


def lost_particles(project: Path, job: str) -> int:
    """Particles whose class is not that of the undisturbed run."""
    undisturbed(project, CLASSIFY, "Class2D/whole")
    ended, whole = (class_numbers(project, f"Class2D/{name}", ITERATIONS) for name in (job, "whole"))
    return len(whole) if len(ended) != len(whole) else int((ended != whole).sum())


def lost_movies(project: Path, job: str) -> int:
    """Movies that are missing from the list or whose sum is not that of the undisturbed run."""
    undisturbed(project, MOVIES, "MotionCorr/of1")
    listed = {Path(str(name)).name for name in _micrographs(project / job)}
    lost = 0
    for name in _micrographs(project / "MotionCorr/of1"):
        whole = project / str(name)
        there = next((project / job).rglob(whole.name), None)
        same = there is not None and np.array_equal(read_image(there)[0], read_image(whole)[0])
        lost += not (same and whole.name in listed)
    return lost


def _micrographs(job: Path) -> list[str]:
    return [str(name) for name in read_dataset(job / "corrected_micrographs.star").rows["micrograph_name"]]


def _classes(project: Path, name: str, rank: int) -> int:
    job = project / "Class2D" / name
    words = [*CLASSIFY, "--o", f"Class2D/{name}"]
    iterating = name.startswith("iterating")
    code = disturbed(project, words, (job / "checkpoint.npz").exists if iterating else lambda: True, rank, KILL)
    if code:  # before there was a directory to go on in
        run(project, *CLASSIFY, "--o", f"Class2D/{name}", "--continue")
    return lost_particles(project, name)


def _scratch(project: Path, rank: int) -> int:
    name, disk = f"copying{rank}", project / f"scratch{rank}"
    disk.mkdir()
    words = [*CLASSIFY, "--o", f"Class2D/{name}", "--scratch_dir", str(disk), "--keep_free_scratch", "0"]
    code = disturbed(project, words, lambda: any(disk.rglob("lock")), rank, KILL)
    if code:
        run(project, *words, "--continue")
    left = [one for one in disk.rglob("images.f32")]
    return lost_particles(project, name) + len(left)  # a copy that stays behind is a loss too


def _movies(project: Path, rank: int) -> int:
    job = f"MotionCorr/killed{rank}"
    words = [*MOVIES, "--o", job, "--ranks", "2"]
    log = project / job / f"rank{rank:03d}.log"
    code = disturbed(project, words, lambda: log.exists() and any((project / job).rglob("*.mrc")), rank, KILL)
    if code:
        run(project, *words, "--continue")
    return lost_movies(project, job)


def _terminated(project: Path) -> int:
    words = [*CLASSIFY, "--o", "Class2D/terminated"]
    code = disturbed(project, words, (project / "Class2D/terminated/checkpoint.npz").exists, None, TERM)
    if code != 128 + TERM:
        raise RuntimeError(f"SIGTERM gave exit code {code}")
    run(project, *words, "--continue")
    return lost_particles(project, "terminated")


def _stale(project: Path) -> int:
    disk = project / "stale"
    disk.mkdir()
    words = [*CLASSIFY, "--scratch_dir", str(disk), "--keep_free_scratch", "0"]
    run(project, *words, "--keep_scratch", "--o", "Class2D/kept")
    next((project / "Simulate").rglob("*.mrcs")).touch()
    run(project, *words, "--reuse_scratch", "--o", "Class2D/refused", codes=(2,))
    run(project, *words, "--o", "Class2D/stale")
    return lost_particles(project, "stale")


def _ceiling(project: Path) -> int:
    run(project, *CLASSIFY, "--max-memory", "0.01", "--o", "Class2D/ceiling")
    return lost_particles(project, "ceiling")


def _scratch_small(project: Path) -> int:
    with _SmallDisk(project / "small", "200k") as disk:
        words = ["--scratch_dir", str(disk.place), "--keep_free_scratch", "0"]
        run(project, *CLASSIFY, *words, "--o", "Class2D/small")
        log = (project / "Class2D/small/run.log").read_text()
        if "images fit" not in log:
            raise RuntimeError("the disk was not too small")
    return lost_particles(project, "small")


def _output_full(project: Path) -> int:
    (project / "MotionCorr/full").mkdir(parents=True)
    words = [*MOVIES, "--o", "MotionCorr/full", "--ranks", "2"]
    with _SmallDisk(project / "MotionCorr/full", "6m") as disk:
        run(project, *words, codes=(1, 2, 3))
        disk.grow("500m")
        run(project, *words, "--continue")
        return lost_movies(project, "MotionCorr/full")


def _refinement_full(project: Path) -> int:
    """Half-maps that are not those of the undisturbed run (of two)."""
    words = [*REFINE, "--ranks", "2"]
    undisturbed(project, words, "Refine3D/whole")
    with _SmallDisk(project / "Refine3D/full", "2m") as disk:
        run(project, *words, "--o", "Refine3D/full", codes=(2,))
        disk.grow("500m")
        run(project, *words, "--o", "Refine3D/full", "--continue")
        halves = [[half_map(project, f"Refine3D/{job}", half) for half in (1, 2)] for job in ("full", "whole")]
        return sum(not np.array_equal(ended, whole) for ended, whole in zip(*halves, strict=True))


class _SmallDisk:
    """A disk of its own size for the time of a block."""

    def __init__(self, place: Path, size: str) -> None:
        self.place, self._size = place, size

    def __enter__(self) -> _SmallDisk:
        self.place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", self.place], check=True)
        return self

    def grow(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.place], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.place], check=True)
