"""How much two ranks of one thread each gain on two cores, and whether any number of ranks gives the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
from benchmarks.ranks.runs import run, seconds_of, timed

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset, write_dataset

MOVIES = ["motioncorr", "--i", "Movies/movies.star", "--patch-x", "3", "--patch-y", "3", "--j", "1"]
MOVIES += ["--dose-per-frame", "2.5"]
REFINE = ["refine3d", "--i", "Simulate/particles.star", "--ref", "Simulate/truth.mrc", "--sym", "O", "--j", "1"]
REFINE += ["--max-iterations", "3", "--ini-high", "40", "--offset-range", "2", "--healpix-order", "2"]
CLASSES = ["class2d", "--i", "Simulate/particles.star", "--K", "3", "--psi-step", "24", "--offset-range", "2"]
CLASSES += ["--j", "1", "--particle-diameter", "150"]


def simulate(project: Path, n_movies: int) -> None:
    """Movies and particles to work on."""
    size = ["--size-x", "768", "--size-y", "768", "--frames", "16", "--particles", "20", "--pixel-size", "2"]
    run(project, "simulate-movies", "--n", str(n_movies), *size, "--defocus-min", "12000", "--o", "Movies")
    shape = ["--n", "60", "--box", "40", "--pixel-size", "5", "--per-micrograph", "20"]
    run(project, "simulate-particles", *shape, "--o", "Simulate")


def repeated(project: Path, star: str, times: int) -> str:
    """A list of each movie or micrograph several times over (links under other names): more than would be simulated."""
    listed = read_dataset(project / star)
    column = "movie_name" if "movie_name" in listed.rows else "micrograph_name"
    many, names = project / "Many", []
    many.mkdir(exist_ok=True)
    for number in range(times):
        for name in map(str, listed.rows[column]):
            link = many / f"{number}_{Path(name).name}"
            if not link.exists():
                link.symlink_to(project.resolve() / name)
            names.append(str(link.relative_to(project)))
    rows = Table.concatenate([listed.rows] * times).with_columns(**{column: np.array(names, dtype=object)})
    output = many / f"{Path(star).parent.name}.star"
    write_dataset(output, Dataset(listed.kind, listed.optics, rows))
    return str(output.relative_to(project))


def queued(project: Path, times: float = 1.0) -> dict[str, list[str]]:
    """The queue-driven jobs, each on more than a minute of work for one quiet core (times: of that)."""
    run(project, *MOVIES, "--o", "Once/motion")
    run(project, "ctf", "--i", "Once/motion/corrected_micrographs.star", "--j", "1", "--o", "Once/ctf")
    lists = {
        job: repeated(project, star, max(1, round(times * count)))
        for job, (star, count) in {
            "motioncorr": ("Movies/movies.star", 20),
            "ctf": ("Once/motion/corrected_micrographs.star", 26),
            "autopick": ("Once/ctf/micrographs_ctf.star", 80),
        }.items()
    }
    picks = ["--diameter-min", "110", "--diameter-max", "150"]
    return {
        "motioncorr": [*(word.replace("Movies/movies.star", lists["motioncorr"]) for word in MOVIES)],
        "ctf": ["ctf", "--i", lists["ctf"], "--j", "1"],
        "autopick": ["autopick", "--i", lists["autopick"], *picks, "--j", "1"],
    }


def scaling(project: Path, times: float = 1.0) -> dict[str, dict[str, float]]:
    """One rank and two, by job: whole commands, the start and end around the job, and CPU seconds.

    ratio: of the whole commands' seconds, from typing them to the prompt. ratio_of_cpu: one rank's CPU seconds over
    those of the busier of two ranks: what the ratio would be on cores that nobody else uses and that do not wait.
    """
    found = {}
    for job, words in queued(project, times).items():
        one, two = (timed(project, *words, "--o", f"{job}/of{ranks}", "--ranks", str(ranks)) for ranks in (1, 2))
        around = [run.seconds - seconds_of(project, f"{job}/of{ranks}") for ranks, run in ((1, one), (2, two))]
        found[job] = {
            "seconds_1": round(one.seconds, 2),
            "seconds_2": round(two.seconds, 2),
            "ratio": round(one.seconds / two.seconds, 3),
            "start_and_report_seconds_1": round(around[0], 2),
            "start_and_report_seconds_2": round(around[1], 2),
            "cpu_seconds_1": round(max(one.cpu.values()), 2),
            "cpu_seconds_2": round(max(two.cpu.values()), 2),
            "ratio_of_cpu": round(max(one.cpu.values()) / max(two.cpu.values()), 3),
            "load_average": round(psutil.getloadavg()[0], 2),
        }
    return found


def agreement(project: Path) -> dict[str, float | bool]:
    """Largest difference of half-maps by 2 and 3 ranks from that by 1, over its maximum; whether classes agree."""
    for ranks in (1, 2, 3):
        run(project, *REFINE, "--o", f"Refine3D/of{ranks}", "--ranks", str(ranks))
        run(project, *CLASSES, "--iter", "4", "--o", f"Class2D/of{ranks}", "--ranks", str(ranks))
    maps = [half_map(project, f"Refine3D/of{ranks}") for ranks in (1, 2, 3)]
    classes = [class_numbers(project, f"Class2D/of{ranks}", 4) for ranks in (1, 2, 3)]
    return {
        "map_relative_difference": max(float(np.abs(one - maps[0]).max() / np.abs(maps[0]).max()) for one in maps[1:]),
        "same_classes": all(bool((one == classes[0]).all()) for one in classes[1:]),
    }


def half_map(project: Path, job: str, half: int = 1) -> np.ndarray:
    return np.asarray(read_image(project / job / f"run_half{half}_class001_unfil.mrc")[0])


def class_numbers(project: Path, job: str, iteration: int) -> np.ndarray:
    return np.asarray(read_dataset(project / job / f"run_it{iteration:03d}_data.star").rows["class_number"])
