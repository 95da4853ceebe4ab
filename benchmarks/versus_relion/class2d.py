"""2D classification of simulated cages: ours, then relion_refine with the same options and iterations.

    python -m benchmarks.versus_relion.class2d [--n 2000] [--classes 10] [--iterations 10] [--work DIR] [--ours-only]

A good class holds particles seen from one direction. Accuracy is one less the median angle between the views of two
particles of a class, over that of any two particles (symmetry and mirror images taken into account: 0 for classes
drawn by lot, 1 for perfect ones). `least_twin`: of RELION's classes of more than 3% of the particles, the one that is
least like any of ours, and how like (correlation, 15 A); `agreement`: share of particles that both put into classes
that go together (ten views of a cage can be drawn in many ways).
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
from benchmarks.versus_relion.accuracy import matched_agreement
from benchmarks.versus_relion.dataset import Settings, SimulatedSet, cage, simulate
from benchmarks.versus_relion.measure import side_by_side
from benchmarks.versus_relion.twins import twin_correlations

from vitreous.core.rotations import euler_to_matrix
from vitreous.core.symmetry import symmetry_matrices
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset, read_table

_THREADS = 2
_PAIRS = 20000
_LARGE = 0.03  # share of the particles from which a class counts
_TWIN_RESOLUTION = 15.0  # A


def shared_options(images: SimulatedSet, classes: int, iterations: int, seed: int) -> dict[str, Any]:
    """Options that both programs know under the same name."""
    return {
        "i": images.particles,
        "K": classes,
        "iter": iterations,
        "tau2_fudge": 2.0,
        "particle_diameter": float(round(images.diameter + 10.0)),
        "psi_step": 12.0,
        "offset_range": 5,
        "offset_step": 2,
        "oversampling": 1,
        "random_seed": seed,
    }


def score(images: SimulatedSet, data: Path) -> float:
    """How much closer together the views of a class are than views at large; rows are matched by image."""
    truth = read_dataset(images.project / images.truth).rows
    euler = (torch.from_numpy(truth[name].astype(np.float64)) for name in ("rot", "tilt", "psi"))
    views = dict(zip(truth["image_name"], euler_to_matrix(*euler)[:, 2].numpy(), strict=True))
    rows = read_dataset(data).rows
    directions = np.stack([views[name] for name in rows["image_name"]])
    classes = rows["class_number"]
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(rows), _PAIRS)
    anyone = rng.integers(0, len(rows), _PAIRS)
    members = {c: np.flatnonzero(classes == c) for c in np.unique(classes)}
    mate = np.array([rng.choice(members[classes[i]]) for i in first])
    within, at_large = (np.median(_angles(directions[first], directions[other])) for other in (mate, anyone))
    return float(1.0 - within / at_large)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest angle (degrees) between views, over the equivalent ones of the cage's group O."""
    group = symmetry_matrices("O").numpy()
    cosines = np.einsum("ni,gij,nj->ng", a, group, b).max(1)
    return np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))


def likeness(ours_at: Path, relion_at: Path, iteration: int, diameter: float) -> dict[str, float]:
    """How like RELION's averages and assignments ours are."""
    stem = f"run_it{iteration:03d}"
    mine, pixel_size = read_image(ours_at / f"{stem}_classes.mrcs")
    theirs, _ = read_image(relion_at / f"{stem}_classes.mrcs")
    share = read_table(relion_at / f"{stem}_model.star", "model_classes")["class_distribution"]
    alike = twin_correlations(
        theirs[share > _LARGE], mine, pixel_size=pixel_size, diameter=diameter, resolution=_TWIN_RESOLUTION
    )
    rows, other = (read_dataset(place / f"{stem}_data.star").rows for place in (ours_at, relion_at))
    classes = dict(zip(rows["image_name"], rows["class_number"], strict=True))
    same = matched_agreement(np.array([classes[name] for name in other["image_name"]]), other["class_number"])
    return {"least_twin": float(alike.max(1).min()), "large_classes": int((share > _LARGE).sum()), "agreement": same}


def run(
    work: Path, n: int, classes: int, iterations: int, *, seed: int = 1, with_relion: bool = True
) -> dict[str, Any]:
    """Time and accuracy of both, under the names of benchmarks/results/refinement.json."""
    images = simulate(work, cage(), Settings(n))
    options = shared_options(images, classes, iterations, seed)
    last = f"run_it{iterations:03d}_data.star"
    mine, theirs = ours.run(work, "class2d", "Class2D/ours", options, threads=_THREADS), None
    result: dict[str, Any] = {"particles": n, "classes": classes, "iterations": iterations, "snr": images.snr}
    result |= {"ours": asdict(mine), "ours_accuracy": score(images, work / "Class2D/ours" / last)}
    if with_relion:
        more = {"ctf": True, "norm": True, "scale": True, "flatten_solvent": True, "zero_mask": True}
        theirs = relion.refine(work, "relion/class2d", options | more | {"dont_check_norm": True}, threads=_THREADS)
        result |= {"relion": asdict(theirs), "relion_accuracy": score(images, work / "relion/class2d" / last)}
        result |= likeness(work / "Class2D/ours", work / "relion/class2d", iterations, options["particle_diameter"])
    return result | side_by_side(mine, theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("versus_relion_class2d"))
    args = parser.parse_args()
    with_relion = not args.ours_only and relion.is_installed()
    print(
        json.dumps(run(args.work.resolve(), args.n, args.classes, args.iterations, with_relion=with_relion), indent=1)
    )


if __name__ == "__main__":
    main()
