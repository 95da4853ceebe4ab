"""One run of a benchmark: the job as a user would start it, and what its files say about time and memory."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from vitreous.core.errors import InputError
from vitreous.pipeline.benchmark.settings import FULL_K, OPTIONS, Settings, Shape
from vitreous.pipeline.project import RECORD
from vitreous.pipeline.record import read_metrics, versions
from vitreous.pipeline.runner import is_finished

JOBS = {"2d": "class2d", "3d": "class3d"}
PHASES = ("expectation", "maximisation", "reconstruction")


def public_data(folder: Path) -> tuple[Path, Path]:
    """Particles and reference of the public benchmark's folder. Raises InputError where they are not there."""
    particles, reference = folder / "Particles/shiny_2sets.star", folder / "emd_2660.map"
    for path in (particles, reference):
        if not path.is_file():
            what = f"is no folder of RELION's benchmark: it has no {path.relative_to(folder)}"
            raise InputError(folder, what, "Give the unpacked folder, or --synthetic 0.001.")
    return particles, reference


def synthetic_data(shape: Shape, model: str, root: Path) -> tuple[Path, Path]:
    """Particles and reference simulated from an atomic model, made once."""
    place = root / f"data_{shape.particles}x{shape.box}"
    if not is_finished(place):
        words = ["simulate-particles", "--model", model, "--n", str(shape.particles), "--box", str(shape.box)]
        words += ["--pixel-size", f"{shape.pixel_size:.6g}", "--o", str(place.relative_to(root))]
        _vitreous(words, root)
    return place / "particles.star", place / "truth.mrc"


def command(
    settings: Settings, particles: Path, reference: Path, output: str, classes: int, more: list[str]
) -> list[str]:
    """The job's words. classes: 0 for the public benchmark's own number."""
    words = [JOBS[settings.case], "--i", str(particles), "--K", str(classes or FULL_K[settings.case])]
    words += ["--ref", str(reference)] if settings.case == "3d" else []
    words += [*OPTIONS[settings.case], "--iter", str(settings.iterations), "--ranks", str(settings.ranks)]
    words += ["--j", str(settings.threads), "--pool", str(settings.pool), "--restarts", "0", "--o", output]
    words += ["--cpu"] if settings.device == "cpu" else ["--gpu", ":".join(map(str, range(settings.gpus)))]
    return [*words, *more]


def measure(settings: Settings, words: list[str], root: Path, output: str, n_particles: int) -> dict[str, Any]:
    """Run it; its result as it stands in the JSON file. The figure of merit is the seconds of the iterations."""
    started = time.time()
    _vitreous(words, root)
    place = root / output
    ends = sorted((int(number), path.stat().st_mtime) for number, path in _iterations(place))
    ends = [(number, when) for number, when in ends if when >= started]
    metrics = read_metrics(place)["metrics"]
    begun = (place / RECORD).stat().st_mtime + metrics["reading_seconds"]
    seconds = np.diff([begun, *(when for _, when in ends)])
    inside = {phase: round(metrics.get(f"{phase}_seconds", 0.0), 3) for phase in PHASES}
    return {
        "figure_of_merit_s": round(float(seconds.sum()), 3),
        "iteration_s": {number: round(float(one), 3) for (number, _), one in zip(ends, seconds, strict=True)},
        "phase_s": {
            "start and reading": round(begun - started - metrics.get("scratch_copy_seconds", 0.0), 3),
            "scratch copy": metrics.get("scratch_copy_seconds", 0.0),
            "iterations": round(float(seconds.sum()), 3),
            **{f"of these {phase}": spent for phase, spent in inside.items()},
            "of these files and the rest": round(max(0.0, float(seconds.sum()) - sum(inside.values())), 3),
            "of these waiting for ranks": metrics.get("waiting_for_ranks_seconds", 0.0),
        },
        "images_per_s": round(n_particles * len(ends) / float(seconds.sum()), 2),
        "peak_host_gb": metrics["peak_rss_gb"],
        "peak_device_gb": metrics.get("peak_device_gb", 0.0),
        "n_particles": n_particles,
        "settings": {**vars(settings), "name": settings.name},
        "command": "vitreous " + " ".join(words),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """What it ran on."""
    try:
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    return {
        "host": platform.node(),
        "cpu": model.group(1) if model else platform.processor(),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": round(psutil.getloadavg()[0], 2),
        "system": platform.platform(),
        "versions": versions(),
    }


def _iterations(place: Path) -> list[tuple[str, Path]]:
    found = [(re.search(r"_it(\d+)_optimiser", path.name), path) for path in place.glob("run_it*_optimiser.star")]
    return [(match.group(1), path) for match, path in found if match and int(match.group(1)) > 0]


def _vitreous(words: list[str], root: Path) -> None:
    """Raises InputError with the job's last line where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "vitreous", "--quiet", *words], cwd=root, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise InputError(f"vitreous {words[0]}", lines[-1].removeprefix("error: "), "Mend that first.")


def write_result(path: Path, result: dict[str, Any]) -> None:
    """One result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


def read_result(path: Path) -> dict[str, Any]:
    """A result that was written before. Raises InputError for anything else."""
    try:
        result = json.loads(path.read_text())
        result["figure_of_merit_s"], result["settings"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(path, "is no result of vitreous benchmark", "Give its benchmark.json.") from None
    return dict(result)
