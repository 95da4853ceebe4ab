"""Full and hierarchical search of simulated cells: targets found, lost, false positives, CPU time.

    python benchmarks/matching_cells/run.py --out benchmarks/results/matching.json [--cells 8] [--keep FOLDER]

Targets (apoferritin) stand among GroEL, beta-galactosidase and antibodies in 60 nm of ice. A target is found where a
hit lies within four pixels of it; a hit near none is a false positive. Targets whose box leaves the micrograph do not
count, nor do hits on them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cell import REPOSITORY, Cell, Recipe, make_cell, template_of

from vitreous.core.rotations import euler_to_matrix
from vitreous.core.symmetry import symmetric_distance
from vitreous.methods.matching.hierarchical import hierarchical_search
from vitreous.methods.matching.match import MatchSettings, find_hits, match_micrograph
from vitreous.methods.matching.search import SearchMaps

BOX = 128
SETTINGS = MatchSettings(3.0, 4.0, "O", defocus_min=-200.0, defocus_max=200.0, defocus_step=200.0)
NEAR_PX = 4.0
RADIUS_PX = 42.0
MAPS = ("mip", "scaled_mip", "mean", "variance", "phi", "theta", "psi", "relative_defocus")


@dataclass
class Outcome:
    """One search judged: hits of targets (by number), false positives, errors of what was found."""

    found: list[int]
    false: int
    angle_errors: list[float]
    defocus_errors: list[float]


def judge(maps: SearchMaps, cell: Cell, *, calibrated: bool = False) -> Outcome:
    """Hits at one false positive against the truth."""
    hits = find_hits(maps, calibrated=calibrated, min_distance=20.0)
    result = Outcome([], 0, [], [])
    for i, (y, x) in enumerate(hits.peaks.positions):
        off = np.hypot(cell.scene.coordinates[:, 0] - x - BOX // 2, cell.scene.coordinates[:, 1] - y - BOX // 2)
        target = int(off.argmin())
        if target not in searchable(cell) and off[target] <= RADIUS_PX:
            continue
        if off[target] > NEAR_PX:
            result.false += 1
            continue
        pose = euler_to_matrix(*(torch.tensor([a[i]]) for a in (hits.phi, hits.theta, hits.psi)))
        error = symmetric_distance(pose, cell.scene.rotations[target : target + 1].to(pose), SETTINGS.symmetry)
        result.found.append(target)
        result.angle_errors.append(float(error))
        result.defocus_errors.append(float(hits.relative_defocus[i] - cell.scene.heights[target]))
    return result


def searchable(cell: Cell) -> list[int]:
    """Targets whose box lies on the micrograph."""
    inside = (cell.scene.coordinates >= BOX // 2) & (cell.scene.coordinates <= cell.image.shape[0] - BOX // 2)
    return [int(i) for i in np.flatnonzero(inside.all(1))]


def timed(search: Any, *args: Any) -> tuple[SearchMaps, float]:
    start = time.process_time()
    return search(*args), time.process_time() - start


def run_cell(recipe: Recipe, seed: int, density: torch.Tensor, keep: Path | None) -> dict[str, Any]:
    cell = make_cell(recipe, seed)
    arguments = cell.image, density, cell.lens, SETTINGS
    kept = keep / f"full{seed}.npz" if keep else None
    if kept and kept.exists():
        stored = np.load(kept)
        full = SearchMaps(*(torch.from_numpy(stored[name]) for name in MAPS), int(stored["n_correlations"]))
        full_s = float(stored["cpu_s"])
    else:
        full, full_s = timed(match_micrograph, *arguments)
        if kept:
            arrays = {name: getattr(full, name).numpy() for name in MAPS}
            np.savez(kept, n_correlations=full.n_correlations, cpu_s=full_s, **arrays)
    quick, quick_s = timed(hierarchical_search, *arguments)
    outcomes = {
        "full": judge(full, cell),
        "full_calibrated": judge(full, cell, calibrated=True),
        "hierarchical": judge(quick, cell),
    }
    row = {
        "seed": seed,
        "targets": len(searchable(cell)),
        "full_s": round(full_s, 2),
        "hierarchical_s": round(quick_s, 2),
    }
    print(seed, row, {name: (len(set(one.found)), one.false) for name, one in outcomes.items()}, flush=True)
    return {**row, **{name: asdict(one) for name, one in outcomes.items()}}


def summary(rows: list[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """Totals over all cells; lost: targets that the full search found and the hierarchical one did not."""
    targets = sum(row["targets"] for row in rows)
    found = {
        name: sum(len(set(row[name]["found"])) for row in rows) for name in ("full", "full_calibrated", "hierarchical")
    }
    lost = sum(len(set(row["full"]["found"]) - set(row["hierarchical"]["found"])) for row in rows)
    full_s, quick_s = (sum(row[name] for row in rows) for name in ("full_s", "hierarchical_s"))
    angles, defoci = (
        np.concatenate([row["full"][name] for row in rows]) for name in ("angle_errors", "defocus_errors")
    )
    return {
        "speedup": round(full_s / quick_s, 2),
        "lost_fraction": round(lost / max(found["full"], 1), 4),
        "cells": len(rows),
        "targets": targets,
        "found": found,
        "false_positives": {name: sum(row[name]["false"] for row in rows) for name in found},
        "median_angle_error_deg": round(float(np.median(angles)), 2),
        "largest_angle_error_deg": round(float(angles.max()), 2),
        "rms_defocus_error_A": round(float(np.sqrt(np.mean(defoci**2))), 1),
        "cpu_s": {"full": round(full_s, 1), "hierarchical": round(quick_s, 1)},
        "search": {"psi_step": SETTINGS.psi_step, "theta_step": SETTINGS.theta_step, "planes": len(SETTINGS.planes())},
        "cell": asdict(recipe),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/matching.json")
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="folder that keeps the full searches' maps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe()
    density = template_of(recipe, BOX).density
    rows = [run_cell(recipe, seed, density, args.keep) for seed in range(1, args.cells + 1)]
    result = summary(rows, recipe)
    print(json.dumps(result, indent=1))
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    results["hierarchical"] = result
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
