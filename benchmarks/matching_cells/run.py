"""Full and hierarchical search of simulated cells: targets found, lost, false positives, CPU time.

    python benchmarks/matching_cells/run.py [--cells 6] [--first-seed 304] [--processes 2] [--keep FOLDER]

Targets (apoferritin) stand among GroEL, beta-galactosidase and antibodies in 50 to 150 nm of ice, at all heights. A
target is found where a hit lies within four pixels of it; a hit near none is a false positive. Targets whose box leaves
the micrograph do not count, nor do hits on them. Nothing was tuned on seeds above 303.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cell import REPOSITORY, Recipe, held_out, make_cell, template_of
from judge import BOX, judge, searchable, summary

from vitreous.methods.matching.hierarchical import hierarchical_search
from vitreous.methods.matching.match import MatchSettings, match_micrograph
from vitreous.methods.matching.search import SearchMaps

MAPS = ("mip", "scaled_mip", "mean", "variance", "phi", "theta", "psi", "relative_defocus")
_STEP = 200.0  # A, of the defocus planes


def settings_of(recipe: Recipe) -> MatchSettings:
    """Default steps, in O; defocus planes as far as targets lie above and below the middle of the ice."""
    reach = _STEP * max(1, round(0.5 * (recipe.thickness - 120.0) / _STEP))
    return MatchSettings(1.5, 2.5, "O", defocus_min=-reach, defocus_max=reach, defocus_step=_STEP)


def timed(search: Any, *args: Any) -> tuple[SearchMaps, float]:
    """What a search finds, and its CPU seconds."""
    start = time.process_time()
    return search(*args), time.process_time() - start


def full_search(kept: Path | None, *args: Any) -> tuple[SearchMaps, float]:
    """The full search and its CPU seconds, from an earlier run where its maps were kept."""
    if kept is None or not kept.exists():
        maps, seconds = timed(match_micrograph, *args)
        if kept is not None:
            arrays = {name: getattr(maps, name).numpy() for name in MAPS}
            np.savez(kept, n_correlations=maps.n_correlations, cpu_s=seconds, **arrays)
        return maps, seconds
    stored = np.load(kept)
    maps = SearchMaps(*(torch.from_numpy(stored[name]) for name in MAPS), int(stored["n_correlations"]))
    return maps, float(stored["cpu_s"])


def run_cell(seed: int, keep: Path | None) -> dict[str, Any]:
    """Make one cell, search it both ways and judge what was found."""
    torch.set_num_threads(1)
    recipe = held_out(seed)
    cell = make_cell(recipe, seed)
    settings = settings_of(recipe)
    arguments = cell.image, template_of(recipe, BOX).density, cell.lens, settings
    full, full_s = full_search(keep / f"full{seed}.npz" if keep else None, *arguments)
    quick, quick_s = timed(hierarchical_search, *arguments)
    outcomes = {
        "full": judge(full, cell, settings.symmetry),
        "full_calibrated": judge(full, cell, settings.symmetry, calibrated=True),
        "hierarchical": judge(quick, cell, settings.symmetry),
    }
    row = {
        "seed": seed,
        "thickness": recipe.thickness,
        "defocus": recipe.defocus,
        "planes": len(settings.planes()),
        "targets": len(searchable(cell)),
        "full_s": round(full_s, 2),
        "hierarchical_s": round(quick_s, 2),
    }
    found = {name: f"{len(set(one.found))} found, {one.false} false" for name, one in outcomes.items()}
    print(json.dumps({**row, **found}), flush=True)
    return {**row, "outcomes": outcomes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/matching.json")
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=304)
    parser.add_argument("--processes", type=int, default=2, help="cells searched at a time, one thread each")
    parser.add_argument("--keep", type=Path, help="folder that keeps the full searches' maps")
    args = parser.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    seeds = range(args.first_seed, args.first_seed + args.cells)
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(partial(run_cell, keep=args.keep), seeds))
    result = summary(rows)
    print(json.dumps(result, indent=1))
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    results["hierarchical"] = result
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
