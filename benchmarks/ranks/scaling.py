"""How much two ranks of one thread each gain on two cores, and whether any number of ranks gives the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.ranks.runs import run, seconds_of

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


def repeated(project: Path, times: int = 3) -> list[str]:
    """Motion correction of each movie several times over (under other names): more items than would be simulated."""
    movies = read_dataset(project / "Movies/movies.star")
    many, names = project / "Many", []
    many.mkdir(exist_ok=True)
    for number in range(times):
        for name in movies.rows["movie_name"].tolist():
            link = many / f"{number}_{Path(name).name}"
            if not link.exists():
                link.symlink_to(project / name)
            names.append(str(link.relative_to(project)))
    rows = Table.concatenate([movies.rows] * times).with_columns(movie_name=np.array(names, dtype=object))
    write_dataset(many / "movies.star", Dataset("movies", movies.optics, rows))
    return [word.replace("Movies/", "Many/") for word in MOVIES]


def steps(project: Path) -> dict[str, list[str]]:
    """The queue-driven jobs, each on the results of the one before by one rank."""
    ctf = ["ctf", "--i", "Scaling/motion1/corrected_micrographs.star", "--j", "1"]
    picks = ["autopick", "--i", "Scaling/ctf1/micrographs_ctf.star", "--diameter-min", "110", "--diameter-max", "150"]
    return {"motion": repeated(project), "ctf": ctf, "pick": [*picks, "--j", "1"]}


def scaling(project: Path) -> dict[str, dict[str, float]]:
    """Seconds by one and by two ranks, and their ratio, by job."""
    found = {}
    for step, words in steps(project).items():
        for ranks in (1, 2):
            run(project, *words, "--o", f"Scaling/{step}{ranks}", "--ranks", str(ranks))
        one, two = (seconds_of(project, f"Scaling/{step}{ranks}") for ranks in (1, 2))
        found[words[0]] = {"seconds_1": one, "seconds_2": two, "ratio": round(one / two, 3)}
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


def half_map(project: Path, job: str) -> np.ndarray:
    return np.asarray(read_image(project / job / "run_half1_class001_unfil.mrc")[0])


def class_numbers(project: Path, job: str, iteration: int) -> np.ndarray:
    return np.asarray(read_dataset(project / job / f"run_it{iteration:03d}_data.star").rows["class_number"])
