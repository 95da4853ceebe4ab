"""Our search of a Leopard-EM configuration, timed in CPU seconds; maps saved as arrays. Called by run.py."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vitreous.io.leopard import read_match_config
from vitreous.io.mrc import read_image, read_map
from vitreous.jobs._leopard import lens_of_leopard, settings_of_leopard
from vitreous.kernels.correlate import Statistics
from vitreous.kernels.correlate.butterflies import LANES
from vitreous.kernels.correlate.passes import inverse_passes, plan_transform
from vitreous.methods.matching.match import planned_block, prepare_search
from vitreous.methods.matching.search import finish, search_block


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--orientations", type=int, default=0, help="use only the first N (0: all)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--angles", type=Path, help="npy of (n, 3) angles in the peer's order")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = read_match_config(args.config)
    settings = replace(settings_of_leopard(config, args.config), padding=1)
    if args.angles:
        settings = replace(settings, angles=torch.from_numpy(np.load(args.angles)).to(torch.float64))
    if args.orientations:
        settings = replace(settings, angles=settings.orientations()[: args.orientations])
    image = torch.from_numpy(read_image(config.micrograph)[0])
    start = time.process_time()
    search = prepare_search(image, read_map(config.template).density, lens_of_leopard(config), settings)
    setup = time.process_time() - start
    blocks = search.orientations.blocks(planned_block(search, 2e9))
    warm = Statistics.empty(search.image.valid_shape, search.maker.box)
    search_block(search.image, search.maker, search.orientations, blocks[0][:4], warm)  # compiles the kernels
    statistics = Statistics.empty(search.image.valid_shape, search.maker.box)
    wall, cpu = time.perf_counter(), time.process_time()
    for block in blocks:
        search_block(search.image, search.maker, search.orientations, block, statistics)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    maps = finish(search.image, statistics, search.orientations.angles, search.planes)
    names = ("mip", "scaled_mip", "mean", "variance", "phi", "theta", "psi", "relative_defocus")
    np.savez(args.out, **{name: getattr(maps, name).numpy() for name in names})
    flops = floor_flops(search.image.padded, search.image.valid_shape, search.maker.box)
    print(
        json.dumps(
            {
                "correlations": statistics.count,
                "setup_cpu_s": round(setup, 2),
                "wall_s": round(wall, 2),
                "cpu_s": round(cpu, 2),
                "per_core_s": statistics.count / cpu,
                "floor_per_core_s": fft_flops_per_s() / flops,
            }
        )
    )


def floor_flops(padded: tuple[int, int], valid: tuple[int, int], box: int) -> float:
    """Operations of the transforms alone, a correlation: the pruned forward one shared by two, columns, valid rows."""
    height, width = padded
    half = width // 2 + 1
    column = 5.0 * half * height * np.log2(height)
    rows = 2.5 * width * np.log2(width)
    return 0.5 * (column + box * rows) + column + valid[0] * rows


def fft_flops_per_s(length: int = 256) -> float:
    """What one core reaches in our own transform of sixteen columns that stay in the first-level cache: the roof."""
    plan = plan_transform(length, length)
    rows = np.zeros((length, 2, LANES), np.float32)
    arguments = rows.ctypes.data, length, plan.radices, plan.offsets, plan.factors.ctypes.data
    best = float("inf")
    for _ in range(20):
        start = time.process_time()
        for _ in range(500):
            inverse_passes(*arguments)
        best = min(best, (time.process_time() - start) / 500)
    return float(5.0 * LANES * length * np.log2(length) / best)


if __name__ == "__main__":
    main()
