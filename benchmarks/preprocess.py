"""Pre-processing: motion against RELION's, CTF against the truth, picking against the truth, and movies an hour.

    python benchmarks/preprocess.py [--size 2048] [--frames 24] [--quick] [--output benchmarks/results/preprocess.json]

Motion and CTF are those of motion.py and ctf.py, one thread, CPU seconds (machines are shared). The rate is of one
4096 x 4096 x 40 movie in LZW TIFF through the motioncorr job and then the ctf job, reading, decompression and writing
included; movies an hour are its CPU seconds shared out over all cores. --quick takes 2048 x 2048 x 20 and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import ctf as ctf_benchmark
import motion as motion_benchmark
import numpy as np
import torch

from vitreous import __version__
from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.ctf import ctf as ctf_values
from vitreous.io.mrc import read_header
from vitreous.io.relion import read_dataset, read_table
from vitreous.io.tiff import write_tiff
from vitreous.job import Context
from vitreous.jobs.autopick import Autopick
from vitreous.jobs.ctf import Ctf
from vitreous.jobs.motioncorr import Motioncorr
from vitreous.jobs.simulate_micrographs import SimulateMicrographs
from vitreous.methods.validation.matching import PickCounts, count_picks, match_points
from vitreous.runtime.atomic import write_text
from vitreous.runtime.device import available_cores, set_threads

LEVELS = {"full": 40.0, "half": 20.0, "fifth": 8.0}  # e/A^2
PARTS = ("motion", "motion_small", "ctf", "picking", "rate")
DIAMETER = 130.0  # A, of the built-in ferritin


def context(project: Path, job: str, threads: int) -> Context:
    directory = project / job
    directory.mkdir(parents=True, exist_ok=True)
    return Context(project, directory, torch.device("cpu"), threads, 1, 8 << 30)


def motion(size: int, frames: int, dose: float, movies: int) -> dict[str, float]:
    found = motion_benchmark.measure(size, frames, dose, 0.08, movies)
    figures = {"size_px": size, "frames": frames, "ours_s": found["cpu_s"], "ours_rms_px": found["error_px"]}
    figures["floor_s"] = found["floor_cpu_s"]
    if "relion_cpu_s" in found:
        figures |= {"relion_s": found["relion_cpu_s"], "relion_rms_px": found["relion_error_px"]}
        figures["ratio"] = found["ratio"]
    return figures


def ctf(n: int) -> dict[str, float]:
    """Simulated micrographs at 40 and at 4 e/A^2, and synthetic noise whose rings are far weaker, with its bound."""
    rest = {"defocus_min": 3000.0, "defocus_max": 40000.0, "astigmatism": 2000.0}
    figures: dict[str, float] = {"n": n}
    for prefix, dose in (("", 40.0), ("tenth_", 4.0)):
        found = ctf_benchmark.summarise(ctf_benchmark.measure_simulated(2048, n, dose, **rest))
        figures[f"{prefix}defocus_rms_A"] = found["defocus_rms_error_A"]
        figures[f"{prefix}angle_rms_deg"] = found["angle_rms_error_deg"]
        figures[f"{prefix}without_rings"] = found["n_without_rings"]
    for prefix, strength in (("synthetic_", 0.3), ("synthetic_tenth_", 0.03)):
        found = ctf_benchmark.summarise(ctf_benchmark.measure(4096, n, strength))
        figures[f"{prefix}defocus_rms_A"] = found["defocus_rms_error_A"]
        figures[f"{prefix}defocus_bound_A"] = found["defocus_rms_bound_A"]
        figures[f"{prefix}angle_rms_deg"] = found["angle_rms_error_deg"]
        figures[f"{prefix}angle_bound_deg"] = found["angle_rms_bound_deg"]
        figures[f"{prefix}without_rings"] = found["n_without_rings"]
        figures.setdefault("seconds_per_4k", found["spectrum_cpu_s"] + found["fit_cpu_s"])
    return figures


def picking(n: int) -> dict[str, dict[str, float]]:
    """Recall (of particles not cut by an edge) and precision of autopick at three exposures."""
    figures = {}
    for name, dose in LEVELS.items():
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder)
            params = SimulateMicrographs.Parameters(n_micrographs=n, dose=dose, size_x=1024, size_y=1024, particles=60)
            SimulateMicrographs().run(params, context(project, "Simulate/job001", 1))
            truth = "Simulate/job001/truth_micrographs.star"
            sought = Autopick.Parameters(input=truth, diameter_min=0.9 * DIAMETER, diameter_max=1.1 * DIAMETER)
            Autopick().run(sought, context(project, "AutoPick/job002", 1))
            counts = count(project)
        figures[name] = {"dose": dose, "recall": counts.recall_inside, "precision": counts.precision}
    return figures


def count(project: Path) -> PickCounts:
    particles = read_dataset(project / "Simulate/job001/truth_particles.star").rows
    listing = read_table(project / "AutoPick/job002/autopick.star", "coordinate_files")
    counts = PickCounts()
    for name, file in zip(listing["micrograph_name"], listing["coordinate_file"], strict=True):
        picks, header = read_table(project / str(file)), read_header(project / str(name))
        size = header.pixel_size
        here = particles["micrograph_name"].astype(str) == str(name)
        true = np.stack([particles["coordinate_x"], particles["coordinate_y"]], 1).astype(float)[here] * size
        found = np.zeros((0, 2))
        if "coordinate_x" in picks:
            found = np.stack([picks["coordinate_x"], picks["coordinate_y"]], 1).astype(float) * size
        field = (header.shape[2] * size, header.shape[1] * size)
        counts += count_picks(match_points(found, true, 0.5 * DIAMETER), len(found), true, field, 0.5 * DIAMETER)
    return counts


def specimen(size: int, pixel_size: float) -> np.ndarray:
    """A field of random contrast seen through a lens 1.5 um out of focus."""
    at = Defocus(*(torch.tensor([value]) for value in (15200.0, 14800.0, 30.0, 0.0)))
    lens = ctf_values((size, size), pixel_size, Microscope(300.0, 2.7, 0.1), at, b_factor=80.0)[0].numpy()
    rng = np.random.default_rng(1)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * lens)
    return np.asarray(field * (0.3 / field.std()))


def rate(size: int, frames: int, threads: int) -> dict[str, float]:
    """One movie through motion correction and CTF; what it holds is a specimen that drifts by whole pixels."""
    threads = set_threads(threads)
    process_one(512, 6, threads)  # compiles the kernels
    motion_s, ctf_s, wall = process_one(size, frames, threads)
    return {
        "size_px": size,
        "frames": frames,
        "threads": threads,
        "wall_s": wall,
        "motion_cpu_s": motion_s,
        "ctf_cpu_s": ctf_s,
        "movies_per_hour_wall": 3600.0 / wall,
        "movies_per_hour_cpu": 3600.0 * available_cores() / (motion_s + ctf_s),
    }


def process_one(size: int, frames: int, threads: int) -> tuple[float, float, float]:
    """CPU seconds of the motioncorr job and of the ctf job on its power spectrum, and wall seconds of both."""
    rng, contrast = np.random.default_rng(2), specimen(size, 0.9)
    movie = np.empty((frames, size, size), np.uint8)
    for number in range(frames):
        movie[number] = rng.poisson(np.clip(1.0 + np.roll(contrast, (-number // 2, number), (0, 1)), 0, None))
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "Movies").mkdir()
        write_tiff(project / "Movies/m.tiff", movie, 0.9)
        start, wall = time.process_time(), time.monotonic()
        params = Motioncorr.Parameters(input="Movies", dose_per_frame=1.0, patch_x=5, patch_y=5)
        Motioncorr().run(params, context(project, "MotionCorr/job002", threads))
        between = time.process_time()
        fitted = Ctf.Parameters(input="MotionCorr/job002/corrected_micrographs.star", use_power_spectra=True)
        Ctf().run(fitted, context(project, "CtfFind/job003", threads))
        end, wall = time.process_time(), time.monotonic() - wall
    return between - start, end - between, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--micrographs", type=int, default=6, help="for CTF and picking")
    parser.add_argument("--threads", type=int, default=0, help="for the rate (0: all cores)")
    parser.add_argument("--quick", action="store_true", help="the rate from a smaller movie")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="parts to do; the others stay as they were"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/preprocess.json")
    given = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {available_cores()} cores"
    before = json.loads(given.output.read_text()) if set(given.only) < set(PARTS) and given.output.exists() else {}
    figures: dict[str, Any] = before | {"version": __version__, "machine": machine, "load": os.getloadavg()[0]}
    for name, work in (
        ("motion", lambda: motion(given.size, given.frames, 1.0, 4)),
        ("motion_small", lambda: motion(1024, 12, 2.0, 8)),
        ("ctf", lambda: ctf(given.micrographs)),
        ("picking", lambda: picking(max(2, given.micrographs // 2))),
        ("rate", lambda: rate(*((2048, 20) if given.quick else (4096, 40)), given.threads)),
    ):
        if name not in given.only:
            continue
        figures[name] = rounded(work())
        print(name, json.dumps(figures[name], indent=1), flush=True)
        if name == "rate":
            # CPU seconds on all cores: wall time would tell of the neighbours on a shared machine.
            figures["movies_per_hour"] = figures["rate"]["movies_per_hour_cpu"]
        write_text(given.output, json.dumps(figures, indent=1) + "\n")
    print(given.output)


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Four digits are plenty."""
    return {
        name: rounded(value) if isinstance(value, dict) else float(f"{value:.4g}") for name, value in figures.items()
    }


if __name__ == "__main__":
    main()
