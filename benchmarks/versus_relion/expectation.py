"""How fast the expectation step is against the matrix products of the same machine.

    python -m benchmarks.versus_relion.expectation [--n 400] [--work DIR]

One pass of the expectation step alone over simulated cages (box 64, O, HEALPix order 3, offsets 5/2, oversampling 1)
with a reference at 10 A. Useful operations are the multiplications and additions that the comparison itself needs:
4 for each complex coefficient of each sample, coarse and fine, 2 for its norm once a projection. Projecting,
transforming, whitening, choosing and weighing samples count nothing. The rate of matrix products is that of torch.mm
on float32 of the comparison's own shape, in the same run with the same threads.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.versus_relion.dataset import Settings as SetSettings
from benchmarks.versus_relion.dataset import cage, simulate

from vitreous.core.so3 import orientation_grid
from vitreous.io.mrc import read_map
from vitreous.job import Context
from vitreous.jobs._particles import read_particles
from vitreous.kernels.compare.cuda import products_in
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.initial_reference import lowpassed
from vitreous.methods.refinement.particles import Poses
from vitreous.methods.refinement.references import Maps
from vitreous.methods.refinement.sampling import Sampling, shift_grid
from vitreous.methods.refinement.statistics import initial_noise

_THREADS = 2
_ORDER = 3
_RESOLUTION = 10.0  # A


def product_rate(rows: int, depth: int, columns: int, *, low_precision: bool) -> float:
    """Operations a second of torch.mm on (rows, depth) x (depth, columns)."""
    a, b = torch.randn(rows, depth), torch.randn(columns, depth)
    out = torch.empty(rows, columns)
    with products_in(low_precision, torch.device("cpu")):
        seconds = median_time(lambda: torch.mm(a, b.T, out=out))
    return 2.0 * rows * depth * columns / seconds


def median_time(work: Callable[[], object], repeats: int = 5) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def run(work: Path, n: int) -> dict[str, Any]:
    """Rates and their ratio, with the coarse pass in float32 and in bfloat16."""
    torch.set_num_threads(_THREADS)
    images = simulate(work, cage(), SetSettings(max(n, 400)))
    context = Context(work, work, torch.device("cpu"), _THREADS, 1, 4 << 30)
    _, particles = read_particles(images.particles, context, ctf=True, diameter=images.diameter)
    density = lowpassed(read_map(work / images.maps[0]).density, particles.pixel_size, _RESOLUTION)
    shell = round(particles.box * particles.pixel_size / _RESOLUTION)
    grid = orientation_grid(_ORDER, "O", torch.eye(3, dtype=torch.float64))
    sampling = Sampling(grid.rotations(), grid.finer(1).rotations(), *shift_grid(5.0, 2.0, 1), grid.step)
    poses, radius = Poses.unknown(len(particles)), images.diameter / 2 / particles.pixel_size
    noise = initial_noise(particles, poses, radius, torch.Generator().manual_seed(1))
    prior = Prior(noise, 10.0 / particles.pixel_size, torch.zeros(1, len(sampling.rotations)))
    coarse = min(shell, sampling.coarse_shell(particles.box, particles.pixel_size, images.diameter))
    settings = Settings(max_shell=shell, mask_radius=radius, coarse_shell=coarse)
    references, chosen = Maps([density], shell), np.arange(n)
    result: dict[str, Any] = {"particles": n, "orientations": len(grid), "shifts": len(sampling.shifts)}
    for name, low in (("float32", False), ("bfloat16", True)):
        step = Expectation(particles, references, sampling, prior, replace(settings, low_precision=low))
        operations = sum(useful_operations(step, posterior) for posterior in step.batches(chosen, poses))
        seconds = median_time(lambda step=step: sum(len(p.indices) for p in step.batches(chosen, poses)), 3)
        m = step.coefficients.count(coarse)
        shape = (min(n, 64) * len(sampling.shifts), 2 * m, len(sampling.rotations))
        rate = product_rate(*shape, low_precision=low)
        result[name] = {"seconds": seconds, "gflop_s": operations / seconds / 1e9, "mm_gflop_s": rate / 1e9}
    floor = result["float32"]["mm_gflop_s"]
    result["expectation_fraction_of_gemm"] = result["float32"]["gflop_s"] / floor
    result["expectation_bf16_fraction_of_float32_gemm"] = result["bfloat16"]["gflop_s"] / floor
    return result


def useful_operations(step: Expectation, posterior: Any) -> float:
    """Of the coarse pass for these images, and of the fine samples that it kept."""
    n, m = len(posterior.indices), len(step.coefficients)
    n_rows, n_shifts = len(step.sampling.rotations), len(step.sampling.shifts)
    coarse = 4.0 * n * n_rows * n_shifts * step.coefficients.count(step.settings.coarse_shell) + 2.0 * n * n_rows * m
    children = posterior.level.orientation_children * posterior.level.shift_children
    return coarse + 4.0 * float(posterior.poses.n_significant.sum()) * children * m


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--work", type=Path, default=Path("versus_relion_expectation"))
    args = parser.parse_args()
    os.environ.setdefault("NUMBA_NUM_THREADS", str(_THREADS))
    print(json.dumps(run(args.work.resolve(), args.n), indent=1))


if __name__ == "__main__":
    main()
