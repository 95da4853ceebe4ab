"""Auto-refine of simulated cages (O): ours, then relion_refine_mpi with the same options, each until it converges.

    python -m benchmarks.versus_relion.refine3d [--n 2000] [--work DIR] [--ours-only]

Both start from the true map at 40 A without poses. Accuracy is the median angle between found and true poses
(degrees, symmetry taken into account: less is better); the resolution against the truth stands beside it, and the
median angle between our poses and RELION's beside the step of its last grid.
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
from benchmarks.versus_relion.dataset import Settings, SimulatedSet, cage, simulate
from benchmarks.versus_relion.measure import side_by_side

from vitreous.core.rotations import euler_to_matrix
from vitreous.core.so3 import angular_step
from vitreous.core.symmetry import symmetric_distance
from vitreous.io.mrc import read_map
from vitreous.io.relion import read_dataset, read_table
from vitreous.methods.maps.truth_fsc import truth_fsc

_THREADS = 2
_SYMMETRY = "O"


def shared_options(images: SimulatedSet, seed: int) -> dict[str, Any]:
    """Options that both programs know under the same name."""
    return {
        "i": images.particles,
        "ref": images.maps[0],
        "sym": _SYMMETRY,
        "ini_high": 40.0,
        "particle_diameter": float(round(images.diameter + 10.0)),
        "healpix_order": 3,
        "auto_local_healpix_order": 4,
        "offset_range": 5,
        "offset_step": 2,
        "oversampling": 1,
        "low_resol_join_halves": 40,
        "pad": 2,
        "random_seed": seed,
    }


def score(images: SimulatedSet, data: Path, density: Path) -> dict[str, float]:
    """Median angular error (degrees) and resolution (A) at which the map agrees with the truth (FSC 0.5)."""
    truth, found = read_dataset(images.project / images.truth).rows, read_dataset(data).rows
    place = {name: row for row, name in enumerate(truth["image_name"])}
    order = np.array([place[name] for name in found["image_name"]])
    errors = symmetric_distance(_rotations(found), _rotations(truth)[order], _SYMMETRY)
    compared = truth_fsc(read_map(density), read_map(images.project / images.maps[0]), symmetry=_SYMMETRY)
    return {"median_angle_deg": float(errors.median()), "truth_fsc05_A": float(compared.resolution_05)}


def difference(ours_at: Path, relion_at: Path) -> dict[str, float]:
    """Median angle (degrees) between the poses of both, and the step of RELION's last grid."""
    mine, theirs = (read_dataset(place / "run_data.star").rows for place in (ours_at, relion_at))
    place = {name: row for row, name in enumerate(mine["image_name"])}
    order = np.array([place[name] for name in theirs["image_name"]])
    apart = symmetric_distance(_rotations(mine)[order], _rotations(theirs), _SYMMETRY)
    last = sorted(relion_at.glob("run_it*_sampling.star"))[-1]
    step = angular_step(int(read_table(last, "sampling_general").row(0)["rlnHealpixOrder"]))
    return {"median_difference_deg": float(apart.median()), "final_step_deg": step}


def _rotations(rows: Any) -> torch.Tensor:
    return euler_to_matrix(*(torch.from_numpy(rows[name].astype(np.float64)) for name in ("rot", "tilt", "psi")))


def run(work: Path, n: int, *, seed: int = 1, with_relion: bool = True) -> dict[str, Any]:
    """Time and accuracy of both, under the names of benchmarks/results/refinement.json."""
    images = simulate(work, cage(), Settings(n))
    options = shared_options(images, seed)
    mine, theirs = ours.run(work, "refine3d", "Refine3D/ours", options, threads=_THREADS), None
    files = work / "Refine3D/ours"
    result: dict[str, Any] = {"particles": n, "snr": images.snr}
    result["ours"] = asdict(mine) | score(images, files / "run_data.star", files / "run_class001.mrc")
    result["ours_accuracy"] = result["ours"]["median_angle_deg"]
    if with_relion:
        more = {"auto_refine": True, "split_random_halves": True, "ctf": True, "norm": True, "scale": True}
        more |= {"flatten_solvent": True, "zero_mask": True, "skip_gridding": True, "firstiter_cc": True}
        # a leader and a rank for each half-set: its leader waits
        theirs = relion.refine(work, "relion/refine3d", options | more, threads=1, ranks=3)
        files = work / "relion/refine3d"
        result["relion"] = asdict(theirs) | score(images, files / "run_data.star", files / "run_class001.mrc")
        result["relion_accuracy"] = result["relion"]["median_angle_deg"]
        result |= difference(work / "Refine3D/ours", files)
    return result | side_by_side(mine, theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("versus_relion_refine3d"))
    args = parser.parse_args()
    with_relion = not args.ours_only and relion.is_installed()
    print(json.dumps(run(args.work.resolve(), args.n, with_relion=with_relion), indent=1))


if __name__ == "__main__":
    main()
