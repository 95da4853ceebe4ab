"""Motion correction: time and error on movies of known motion, against the floor of the work and against RELION.

    python benchmarks/motion.py [--size 1024] [--frames 16] [--dose 2] [--contrast 0.08] [--movies 4]
    python benchmarks/motion.py --sweep 1024 [2048 ...]

One thread. Every program is started once and given a batch of movies (copies of one). The floor is the transforms that
are left and the memory that must be read and written, see `floor_seconds`.
Times are CPU seconds a movie (machines are shared), ours after one warm-up on a small movie (numba's cache).
relion_run_motioncorr, where it is installed, works on the same files with the same patches.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import fft
from scipy.ndimage import map_coordinates, spline_filter

from vitreous.data.dataset import Dataset
from vitreous.data.motion import Motion, grid_points, motion_error
from vitreous.data.table import Table
from vitreous.io.motion import read_motion
from vitreous.io.movies import open_movie
from vitreous.io.mrc import write_image
from vitreous.io.relion import write_dataset
from vitreous.methods.motion.correct import MotionOptions, correct_movie
from vitreous.methods.motion.correction import SumOptions
from vitreous.methods.motion.exposure import Exposure
from vitreous.methods.motion.frames import ArrayFrames
from vitreous.runtime.memory import keep_freed_memory, use_large_pages
from vitreous.runtime.workspace import Workspace

MARGIN = 64


@dataclass(frozen=True)
class TrueMotion:
    """True motion in pixels: drift * f**0.7, and local motion of about so many that settles in `settling` frames."""

    drift: float = 1.5
    local: float = 3.0
    settling: float = 5.0

    def __call__(self, f: float, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Displacement (x, y) at frame f, positions as fractions of the field from -0.5 to 0.5."""
        local = self.local * (1.0 - np.exp(-f / self.settling))
        drift = self.drift * f**0.7
        return drift + local * (u - 1.2 * u * v), -0.6 * drift + local * (0.8 * v + 1.5 * u * u)


def simulate(
    size: int, n_frames: int, dose: float, contrast: float, displacement: TrueMotion = TrueMotion()
) -> np.ndarray:
    rng = np.random.default_rng(0)
    full = size + 2 * MARGIN
    k2 = np.fft.fftfreq(full)[:, None] ** 2 + np.fft.rfftfreq(full) ** 2
    specimen = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((full, full))) * np.exp(-15 * k2) * (k2 > 2e-5))
    splines = spline_filter(specimen * (contrast / specimen.std()), 3).astype(np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    frames = np.empty((n_frames, size, size), np.uint8)
    for f in range(n_frames):
        dx, dy = displacement(f, x / size - 0.5, y / size - 0.5)
        image = map_coordinates(splines, [MARGIN + y - dy, MARGIN + x - dx], order=3, prefilter=False)
        frames[f] = rng.poisson(np.clip(dose * (1 + image), 0, None))
    return frames


def floor_seconds(size: int, n_frames: int, dose: float) -> float:
    """CPU seconds of what cannot be left out of the way that is gone here, by the quickest library for each.

    Transforms: of each frame, binned by two, whole and in patches; of a sum for each 4 e/A^2 (power spectrum) and of
    six for the exposure weights, and one back. Memory: each frame's float32 written once and read twice.
    """
    image, quarter = torch.rand(size, size), torch.rand(size // 2, size // 2)
    transform = torch.fft.rfft2(image)
    frames = torch.empty(4, size, size)
    whole = seconds(lambda: torch.fft.rfft2(image))
    binned = seconds(lambda: torch.fft.rfft2(quarter))
    back = seconds(lambda: fft.irfft2(transform.numpy(), s=(size, size)))
    memory = seconds(lambda: (frames.fill_(1.0), frames.sum(), frames.sum())) / len(frames)
    n_sums = 6 + n_frames // max(1, round(4.0 / dose))
    return n_frames * (2 * binned + memory) + n_sums * whole + back


def seconds(work: Callable[[], object], n: int = 3) -> float:
    """CPU seconds of a call, after one to warm up."""
    work()
    start = time.process_time()
    for _ in range(n):
        work()
    return (time.process_time() - start) / n


def error_of(motion: Motion, n_frames: int, displacement: TrueMotion = TrueMotion()) -> float:
    ny, nx = motion.shape
    points = grid_points(motion.shape)
    u, v = points[:, 0] / nx - 0.5, points[:, 1] / ny - 0.5
    true = np.stack([np.stack(displacement(f, u, v), 1) for f in range(n_frames)])
    return motion_error(motion, true, points)[0]


def run_relion(path: Path, names: list[str], dose: float) -> tuple[float, Motion]:
    """CPU seconds of all movies, and the motion found in the first."""
    optics = Table({"optics_group_name": ["opticsGroup1"], "optics_group": [1], "movie_pixel_size": [1.0]})
    optics = optics.with_columns(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    rows = Table({"movie_name": names, "optics_group": [1] * len(names)})
    write_dataset(path / "movies.star", Dataset("movies", optics, rows))
    words = f"relion_run_motioncorr --i movies.star --o relion/ --use_own --dose_weighting --dose_per_frame {dose:g}"
    words += f" --voltage 300 --patch_x 5 --patch_y 5 --grouping_for_ps {max(1, round(4 / dose))} --j 1"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words.split(), cwd=path, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, read_motion(path / "relion" / Path(names[0]).with_suffix(".star").name).motion


def measure(size: int, n_frames: int, dose: float, contrast: float, movies: int = 4) -> dict[str, float]:
    """Seconds a movie and errors by name; RELION's too where it is installed."""
    use_large_pages()
    keep_freed_memory()
    torch.set_num_threads(1)
    options = MotionOptions(Exposure(1.0, 300.0, dose), SumOptions(), patches=(5, 5))
    workspace = Workspace()
    correct_movie(ArrayFrames(simulate(512, 4, 2.0, 0.1)), options)
    frames = simulate(size, n_frames, dose, contrast)
    figures: dict[str, float] = {"floor_cpu_s": floor_seconds(size, n_frames, dose)}
    with tempfile.TemporaryDirectory() as name:
        path, names = Path(name), [f"m{number}.mrcs" for number in range(movies)]
        write_image(path / names[0], frames.astype(np.float32), 1.0)
        del frames
        for other in names[1:]:
            (path / other).hardlink_to(path / names[0])
        start, wall = time.process_time(), time.monotonic()
        for one in names:
            corrected = correct_movie(open_movie(path / one), options, workspace=workspace)
        figures["cpu_s"] = (time.process_time() - start) / movies
        figures["wall_s"] = (time.monotonic() - wall) / movies
        figures["times_floor"] = figures["cpu_s"] / figures["floor_cpu_s"]
        figures["error_px"] = error_of(corrected.motion, n_frames)
        if shutil.which("relion_run_motioncorr"):
            used, motion = run_relion(path, names, dose)
            figures["relion_cpu_s"] = used / movies
            figures["relion_error_px"] = error_of(motion, n_frames)
            figures["ratio"] = figures["relion_cpu_s"] / figures["cpu_s"]
    return figures


def sweep(sizes: list[int], contrast: float, exposure: float = 24.0) -> None:
    """Errors over drift, local motion and dose a frame, at the same exposure; pixels are of 1 A."""
    torch.set_num_threads(1)
    workspace = Workspace()
    for size, dose, drift, local in itertools.product(sizes, (0.5, 1.0, 2.0), (1.0, 5.0, 20.0), (0.0, 3.0)):
        n_frames = round(exposure / dose)
        true = TrueMotion(drift / math.hypot(1.0, 0.6) / (n_frames - 1) ** 0.7, local, 5.0 / dose)
        options = MotionOptions(Exposure(1.0, 300.0, dose), SumOptions(), patches=(5, 5))
        movie = ArrayFrames(simulate(size, n_frames, dose, contrast, true))
        start = time.process_time()
        found = correct_movie(movie, options, workspace=workspace).motion
        figures = {"size_px": size, "dose": dose, "frames": n_frames, "drift_A": drift, "local_px": local}
        figures |= {"error_px": error_of(found, n_frames, true), "cpu_s": time.process_time() - start}
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--dose", type=float, default=2.0)
    parser.add_argument("--contrast", type=float, default=0.08)
    parser.add_argument("--movies", type=int, default=4)
    parser.add_argument("--sweep", type=int, nargs="+", metavar="SIZE", help="instead: errors over drift and dose")
    given = parser.parse_args()
    if given.sweep:
        sweep(given.sweep, given.contrast)
        return
    figures = measure(given.size, given.frames, given.dose, given.contrast, given.movies)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
