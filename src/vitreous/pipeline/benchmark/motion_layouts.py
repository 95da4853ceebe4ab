"""Ways of giving movies to motion correction: all to one process, a process a movie, ranks at one queue.

A public benchmark (EMPIAR-10028) found other programs' wrappers slow because they start a process for each movie;
this measures it on the machine at hand.
"""

from __future__ import annotations

import csv
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import ndimage

from vitreous.core.errors import InputError
from vitreous.io.movies import MOVIE_ENDINGS
from vitreous.io.relion import read_dataset
from vitreous.io.tiff import write_tiff
from vitreous.pipeline.record import versions
from vitreous.runtime.atomic import atomic_path, write_text
from vitreous.runtime.usage import QUANTITIES, Usage, busy_seconds

LAYOUTS = {
    "batch": "one process, with as many threads as workers",
    "per-file": "a process a movie, as many at a time as workers",
    "ranks": "a process a worker, which take movies from one queue",
}


@dataclass(frozen=True)
class Layout:
    """One way, with so many workers."""

    kind: str
    workers: int

    @property
    def name(self) -> str:
        """As figures and tables call it."""
        return f"{self.kind} {self.workers}"


def parse_layouts(kinds: str, workers: str) -> list[Layout]:
    """Every kind with every number of workers. Raises InputError for words that are none."""
    names = [one.strip() for one in kinds.split(",") if one.strip()]
    for one in names:
        if one not in LAYOUTS:
            raise InputError("--layouts", f"knows no {one!r}", f"There are: {', '.join(LAYOUTS)}")
    counts = [one.strip() for one in workers.split(",") if one.strip()]
    if not names or not counts or not all(one.isdecimal() and int(one) > 0 for one in counts):
        raise InputError("--workers", f"cannot read {workers!r}", "Give e.g. 1,2,4.")
    return [Layout(kind, int(count)) for kind in names for count in counts]


def list_movies(given: str) -> list[Path]:
    """Movies of a folder, a pattern or a STAR file. Raises InputError where there are none."""
    path = Path(given).absolute()
    if given.endswith(".star"):
        names = [Path(str(name)) for name in read_dataset(path).rows["movie_name"]]
        found = [name if name.is_absolute() else Path.cwd() / name for name in names]
    elif path.is_dir():
        found = sorted(one for one in path.iterdir() if one.name.lower().endswith(MOVIE_ENDINGS))
    else:
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    if not found:
        raise InputError(given, "names no movies", "Give a folder, a pattern or a STAR file, or --synthetic.")
    return found


def make_movies(folder: Path, n: int, size: int, frames: int) -> list[Path]:
    """Movies of a field that drifts, in LZW TIFF at one electron a pixel; made once."""
    paths = [folder / f"movie_{number + 1:03d}.tiff" for number in range(n)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        field = ndimage.gaussian_filter(rng.standard_normal((size, size)), 2.0, mode="wrap")
        field *= 0.3 / field.std()
        movie = np.empty((frames, size, size), np.uint8)
        for frame in range(frames):
            movie[frame] = rng.poisson(np.clip(1 + np.roll(field, (frame // 2, -frame), (0, 1)), 0, None))
        write_tiff(path, movie, 1.0)
    return paths


def measure_layout(layout: Layout, movies: Sequence[Path], root: Path, more: Sequence[str]) -> dict[str, Any]:
    """Run it and look at the machine meanwhile: seconds, CPU seconds, movies an hour, samples."""
    place = root / layout.name.replace(" ", "_")
    listed = place / "movies"
    listed.mkdir(parents=True, exist_ok=True)
    for old in listed.iterdir():
        old.unlink()
    for movie in movies:
        (listed / movie.name).symlink_to(movie)
    before, busy, start = _cpu_of_children(), busy_seconds(), time.monotonic()
    with Usage() as usage:
        if layout.kind == "per-file":
            with ThreadPoolExecutor(layout.workers) as hands:
                names = sorted(one.name for one in listed.iterdir())
                runs = [hands.submit(_run, _words(f"movies/{one}", f"job/{one}", more, 1), place) for one in names]
                for run in runs:
                    run.result()
        else:
            threads = layout.workers if layout.kind == "batch" else 1
            ranks = ["--ranks", str(layout.workers)] if layout.kind == "ranks" else []
            _run(_words("movies", "job", [*more, *ranks], threads), place)
    seconds, used = time.monotonic() - start, _cpu_of_children() - before
    others = max(0.0, busy_seconds() - busy - used) / (seconds * (psutil.cpu_count() or 1))
    return {
        "layout": asdict(layout),
        "n_movies": len(movies),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),
        "others_cpu_percent": round(100 * others, 1),
        "movies_per_hour": round(len(movies) / seconds * 3600, 1),
        "samples": usage.samples,
    }


def _words(movies: str, output: str, more: Sequence[str], threads: int) -> list[str]:
    words = [sys.executable, "-m", "vitreous", "motioncorr", "--i", movies, "--o", output, "--j", str(threads)]
    return [*words, *more]


def _run(words: Sequence[str], place: Path) -> None:
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError("vitreous motioncorr", f"ended with {done.returncode}: {last}", "Mend what it says.")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_results(root: Path, results: Sequence[dict[str, Any]]) -> None:
    """motion_layouts.json, and usage.csv with a row for each second of each layout."""
    machine = {"host": platform.node(), "cores": psutil.cpu_count(logical=False), "threads": psutil.cpu_count()}
    kept = [{name: value for name, value in one.items() if name != "samples"} for one in results]
    content = {"machine": machine, "versions": versions(), "results": kept, "best": best_of(results)["layout"]}
    write_text(root / "motion_layouts.json", json.dumps(content, indent=1) + "\n")
    with atomic_path(root / "usage.csv") as temporary, temporary.open("w", newline="") as stream:
        table = csv.DictWriter(stream, ["layout", "workers", "second", *QUANTITIES], restval="")
        table.writeheader()
        for one in results:
            where = {"layout": one["layout"]["kind"], "workers": one["layout"]["workers"]}
            for sample in one["samples"]:
                table.writerow(where | {name: round(value, 3) for name, value in sample.items()})


def best_of(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one with the most movies an hour."""
    return max(results, key=lambda one: float(one["movies_per_hour"]))
