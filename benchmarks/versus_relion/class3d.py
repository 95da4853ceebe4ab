"""3D classification of a mixed simulated set: ours, then relion_refine with the same options and iterations.

    python -m benchmarks.versus_relion.class3d [--n 700] [--iterations 10] [--work DIR] [--ours-only]

Three broken cages (the same twelve subunits and four more, elsewhere in each), K = 3, all from one map, the mean of
the three low-passed to 40 A. Both get two threads; RELION its pool of 30 and no gridding, as ours.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.versus_relion import ours, relion
from benchmarks.versus_relion.accuracy import matched_agreement, purity
from benchmarks.versus_relion.dataset import Settings, SimulatedSet, broken_cages, simulate

from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map, write_map
from vitreous.io.relion import read_dataset

_THREADS = 2
_START = "consensus.mrc"


def shared_options(images: SimulatedSet, iterations: int, order: int, seed: int, *, align: bool) -> dict[str, Any]:
    """Options that both programs know under the same name."""
    options: dict[str, Any] = {
        "i": images.particles if align else images.truth,
        "ref": _START,
        "K": len(images.maps),
        "iter": iterations,
        "tau2_fudge": 4.0,
        "ini_high": 40.0,
        "particle_diameter": float(round(images.diameter + 10.0)),
        "firstiter_cc": True,
        "oversampling": 1,
        "pad": 2,
        "random_seed": seed,
    }
    if align:
        return options | {"healpix_order": order, "offset_range": 5, "offset_step": 2}
    return options | {"skip_align": True}


def write_consensus(images: SimulatedSet) -> None:
    """The mean of the true maps: what a refinement of the mixture would give."""
    maps = [read_map(images.project / name) for name in images.maps]
    mean = torch.stack([one.density for one in maps]).mean(0)
    write_map(images.project / _START, Volume(mean, maps[0].voxel_size))


def score(images: SimulatedSet, data: Path) -> dict[str, float]:
    """Purity and agreement of a run's classes with the truth; rows are matched by image."""
    truth = read_dataset(images.project / images.truth).rows
    kinds = dict(zip(truth["image_name"], truth["class_number"].astype(np.int64) - 1, strict=True))
    rows = read_dataset(data).rows
    true = np.array([kinds[name] for name in rows["image_name"]])
    found = rows["class_number"].astype(np.int64) - 1
    return {"purity": purity(found, true), "agreement": matched_agreement(found, true)}


def run(
    work: Path, n: int, iterations: int, order: int, seeds: list[int], *, align: bool = True, with_relion: bool = True
) -> dict[str, Any]:
    """Time and accuracy of both; several seeds one after the other, as classes may end in a local optimum."""
    images = simulate(work, broken_cages(3), Settings(n))
    write_consensus(images)
    result: dict[str, Any] = {"particles": 3 * n, "iterations": iterations, "snr": images.snr, "align": align}
    last = f"run_it{iterations:03d}_data.star"
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        options = shared_options(images, iterations, order, seed, align=align)
        name = f"{'aligned' if align else 'fixed'}_{seed}"
        cost = ours.run(work, "class3d", f"Class3D/{name}", options, threads=_THREADS)
        rows.append({"seed": seed, "ours": asdict(cost) | score(images, work / f"Class3D/{name}" / last)})
        print(json.dumps(rows[-1]), flush=True)
        if with_relion:
            theirs = options | {"ctf": True, "norm": True, "flatten_solvent": True, "zero_mask": True, "sym": "C1"}
            theirs |= {"skip_gridding": True, "dont_check_norm": True}
            cost = relion.refine(work, f"relion/{name}", theirs, threads=_THREADS)
            rows[-1]["relion"] = asdict(cost) | score(images, work / f"relion/{name}" / last)
            print(json.dumps(rows[-1]["relion"]), flush=True)
    return result | _summary(rows) | {"runs": rows}


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the seeds, under the names of benchmarks/results/refinement.json."""

    def mean(program: str, what: str) -> float:
        return float(np.mean([row[program][what] for row in rows]))

    out = {"ours_s": mean("ours", "wall_s"), "ours_cpu_s": mean("ours", "cpu_s")}
    out |= {"ours_accuracy": mean("ours", "purity"), "peak_rss_gb": max(row["ours"]["peak_rss_gb"] for row in rows)}
    if all("relion" in row for row in rows):
        out |= {"relion_s": mean("relion", "wall_s"), "relion_cpu_s": mean("relion", "cpu_s")}
        out |= {"relion_accuracy": mean("relion", "purity")}
        out |= {"ratio": out["relion_s"] / out["ours_s"], "cpu_ratio": out["relion_cpu_s"] / out["ours_cpu_s"]}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=700, help="particles of each of the three kinds")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--healpix-order", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--skip-align", action="store_true", help="classes alone, at the true poses")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("versus_relion_class3d"))
    args = parser.parse_args()
    result = run(
        args.work.resolve(),
        args.n,
        args.iterations,
        args.healpix_order,
        args.seeds,
        align=not args.skip_align,
        with_relion=not args.ours_only and relion.is_installed(),
    )
    print(json.dumps({name: value for name, value in result.items() if name != "runs"}, indent=1))


if __name__ == "__main__":
    main()
