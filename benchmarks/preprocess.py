"""Pre-processing: motion against RELION's, CTF against the truth, picking against the truth, and movies an hour.

    python benchmarks/preprocess.py [--size 2048] [--frames 24] [--quick] [--output benchmarks/results/preprocess.json]

Motion, CTF and picking are those of motion.py, ctf.py and picking.py, one thread, CPU seconds (machines are shared).
The rate is of 4096 x 4096 x 40 movies in LZW TIFF through the preprocess job to particles, reading, decompression and
writing included; movies an hour are its CPU seconds shared out over all cores. --quick takes 2048 x 2048 x 20 and
says so.
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
import picking as picking_benchmark
import torch
from picking import DIAMETER

from vitreous import __version__
from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.ctf import ctf as ctf_values
from vitreous.io.relion import read_table
from vitreous.io.tiff import TiffMovie, write_tiff
from vitreous.job import Context
from vitreous.jobs.preprocess import Preprocess
from vitreous.runtime.atomic import write_text
from vitreous.runtime.device import available_cores, set_threads

PARTS = ("motion", "motion_small", "ctf", "picking", "rate")


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


def ctf(n: int) -> dict[str, Any]:
    """Simulated micrographs at 40 and at 4 e/A^2, and synthetic noise whose rings are far weaker, with its bound."""
    rest = {"defocus_min": 3000.0, "defocus_max": 40000.0, "astigmatism": 2000.0}
    figures: dict[str, Any] = {"n": n}
    for prefix, dose in (("", 40.0), ("tenth_", 4.0)):
        found = ctf_benchmark.summarise(ctf_benchmark.measure_simulated(2048, n, dose, **rest))
        figures[f"{prefix}defocus_rms_A"] = found["defocus_rms_error_A"]
        figures[f"{prefix}angle_rms_deg"] = found.get("angle_rms_error_deg")
        figures[f"{prefix}without_rings"] = found["n_without_rings"]
    for prefix, strength in (("synthetic_", 0.3), ("synthetic_tenth_", 0.03)):
        found = ctf_benchmark.summarise(ctf_benchmark.measure(4096, n, strength))
        figures[f"{prefix}defocus_rms_A"] = found["defocus_rms_error_A"]
        figures[f"{prefix}defocus_bound_A"] = found["defocus_rms_bound_A"]
        figures[f"{prefix}angle_rms_deg"] = found.get("angle_rms_error_deg")
        figures[f"{prefix}angle_bound_deg"] = found["angle_rms_bound_deg"]
        figures[f"{prefix}without_rings"] = found["n_without_rings"]
        figures[f"{prefix}worst_with_rings_A"] = found["worst_error_with_rings_A"]
        figures.setdefault("seconds_per_4k", found["spectrum_cpu_s"] + found["fit_cpu_s"])
    return figures | {"cases": ctf_benchmark.measure_cases(2048, max(2, n // 3))}


def specimen(size: int, pixel_size: float) -> np.ndarray:
    """A field of random contrast with dark particles of DIAMETER in it, seen through a lens 1.5 um out of focus."""
    at = Defocus(*(torch.tensor([value]) for value in (15200.0, 14800.0, 30.0, 0.0)))
    lens = ctf_values((size, size), pixel_size, Microscope(300.0, 2.7, 0.1), at, b_factor=80.0)[0].numpy()
    rng = np.random.default_rng(1)
    field = rng.standard_normal((size, size))
    spacing = int(2 * DIAMETER / pixel_size)
    y, x = np.indices((spacing, spacing)) - spacing / 2
    inside = np.hypot(y, x) < 0.5 * DIAMETER / pixel_size
    for top in range(0, size - spacing + 1, spacing):
        for left in range(0, size - spacing + 1, spacing):
            field[top : top + spacing, left : left + spacing] -= 0.7 * inside
    field = np.fft.irfft2(np.fft.rfft2(field) * lens)
    return np.asarray(field * (0.3 / field.std()))


def rate(size: int, frames: int, threads: int, movies: int = 2) -> dict[str, float]:
    """Movies through `preprocess`, from LZW TIFF to particles; what they hold is a specimen that drifts.

    The floor is what no way around it saves: decompression, and motion.py's transforms and passes over memory.
    """
    threads = set_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        run_stream(project, "warm", make_movies(project / "warm", 512, 6, 1), threads)  # compiles the kernels
        paths = make_movies(project / "Movies", size, frames, movies)
        cpu, wall, per_step = run_stream(project, "Movies", paths, threads)
        start = time.process_time()
        TiffMovie(paths[0]).raw_frames()
        decompression = time.process_time() - start
        megabytes = paths[0].stat().st_size / 1e6
    torch.set_num_threads(1)
    floor = decompression + motion_benchmark.floor_seconds(size, frames, 1.0)
    return {
        "size_px": size,
        "frames": frames,
        "movies": movies,
        "threads": threads,
        "megabytes_read": megabytes,
        "wall_s": wall / movies,
        "cpu_s": cpu / movies,
        "decompression_cpu_s": decompression,
        "floor_cpu_s": floor,
        "times_floor": cpu / movies / floor,
        "steps_wall_s": per_step,
        "movies_per_hour_wall": 3600.0 * movies / wall,
        "movies_per_hour_cpu": 3600.0 * available_cores() * movies / cpu,
    }


def make_movies(folder: Path, size: int, frames: int, n: int) -> list[Path]:
    """One movie under several names."""
    rng, contrast = np.random.default_rng(2), specimen(size, 0.9)
    movie = np.empty((frames, size, size), np.uint8)
    for number in range(frames):
        movie[number] = rng.poisson(np.clip(1.0 + np.roll(contrast, (-number // 2, number), (0, 1)), 0, None))
    folder.mkdir()
    paths = [folder / f"m{number}.tiff" for number in range(n)]
    write_tiff(paths[0], movie, 0.9)
    for other in paths[1:]:
        other.hardlink_to(paths[0])
    return paths


def run_stream(project: Path, movies: str, paths: list[Path], threads: int) -> tuple[float, float, dict[str, float]]:
    """CPU and wall seconds of all movies, and the mean wall seconds of each step."""
    given = Preprocess.Parameters(
        input=movies, dose_per_frame=1.0, patch_x=5, patch_y=5, diameter_max=1.1 * DIAMETER, box=256, rescale=128
    )
    start, wall = time.process_time(), time.monotonic()
    Preprocess().run(given, context(project, f"Preprocess/{movies}", threads))
    cpu, wall = time.process_time() - start, time.monotonic() - wall
    table = read_table(project / f"Preprocess/{movies}/stream.star", "movies")
    print(f"{len(paths)} movies: {int(table['vitreousParticles'].sum())} particles", flush=True)
    steps = {name.removeprefix("vitreousSeconds").lower(): float(table[name].mean()) for name in table if "Sec" in name}
    return cpu, wall, steps


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
        ("picking", lambda: picking_benchmark.measure(max(2, given.micrographs // 2), context)),
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
