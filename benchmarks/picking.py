"""Picking against the truth: autopick by LoG, by templates and by a trained picker, on the same simulated micrographs.

    python benchmarks/picking.py [--micrographs 3] [--levels full half fifth contaminated]

Three exposures, and one field with gold, lumps of ice and carbon. The picker is trained on 25 picks in each of five
other micrographs of the same kind (125 in all, of 30 to 60 particles each). Recall is of particles not cut by an edge.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.io.mrc import read_header
from vitreous.io.relion import read_dataset, read_table, write_dataset
from vitreous.job import Context
from vitreous.jobs.autopick import Autopick
from vitreous.jobs.simulate_micrographs import SimulateMicrographs
from vitreous.jobs.train_picker import TrainPicker
from vitreous.methods.validation.matching import PickCounts, count_picks, match_points

DIAMETER = 130.0  # A, of the built-in ferritin
# Dose in e/A^2, and what spoils the field.
LEVELS: dict[str, dict[str, float]] = {
    "full": {"dose": 40.0},
    "half": {"dose": 20.0},
    "fifth": {"dose": 8.0},
    "contaminated": {"dose": 20.0, "gold_beads": 6, "ice_lumps": 12, "carbon": 0.25},
}
_TRAINING_MICROGRAPHS, _PICKS_EACH = 5, 25
MakeContext = Callable[[Path, str, int], Context]


def measure(n: int, context: MakeContext, levels: dict[str, dict[str, float]] = LEVELS) -> dict[str, dict[str, Any]]:
    """Recall and precision of each level: the default picker's (LoG), the templates' and the trained."""
    return {name: measure_level(n, settings, context) for name, settings in levels.items()}


def measure_level(n: int, settings: dict[str, float], context: MakeContext) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        field = {"size_x": 1024, "size_y": 1024, "particles": 60, **settings}
        simulate(project, "Simulate/job001", field, n, context, seed=1)
        simulate(project, "Simulate/job002", field, _TRAINING_MICROGRAPHS, context, seed=2)
        sizes = {"diameter_min": 0.9 * DIAMETER, "diameter_max": 1.1 * DIAMETER}
        model, seconds = train(project, context)
        figures: dict[str, Any] = {"dose": settings["dose"], **pick(project, context, **sizes)}
        figures["templates"] = pick(project, context, ref="Simulate/job001/truth.mrc", psi_step=10.0, **sizes)
        figures["trained"] = {**pick(project, context, model=model), "training_cpu_s": seconds}
    return figures


def simulate(project: Path, job: str, field: dict[str, Any], n: int, context: MakeContext, *, seed: int) -> None:
    here = context(project, job, 1)
    here.seed = seed
    SimulateMicrographs().run(SimulateMicrographs.Parameters(n_micrographs=n, **field), here)


def train(project: Path, context: MakeContext) -> tuple[str, float]:
    """A picker from some of the particles of the training micrographs: its file, and CPU seconds."""
    truth = read_dataset(project / "Simulate/job002/truth_particles.star")
    names, rng = truth.rows["micrograph_name"].astype(str), np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(names == name))[:_PICKS_EACH] for name in dict.fromkeys(names.tolist())]
    write_dataset(project / "some.star", truth.take(np.concatenate(chosen)))
    params = TrainPicker.Parameters(
        input="Simulate/job002/truth_micrographs.star", coordinates="some.star", diameter=DIAMETER
    )
    start = time.process_time()
    TrainPicker().run(params, context(project, "TrainPicker/job003", 1))
    return "TrainPicker/job003/picker.pt", time.process_time() - start


def pick(project: Path, context: MakeContext, **options: Any) -> dict[str, float]:
    params = Autopick.Parameters(input="Simulate/job001/truth_micrographs.star", **options)
    Autopick().run(params, context(project, "AutoPick/job004", 1))
    counts = count(project)
    return {"recall": counts.recall_inside, "precision": counts.precision}


def count(project: Path) -> PickCounts:
    particles = read_dataset(project / "Simulate/job001/truth_particles.star").rows
    listing = read_table(project / "AutoPick/job004/autopick.star", "coordinate_files")
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


def plain_context(project: Path, job: str, threads: int) -> Context:
    (project / job).mkdir(parents=True, exist_ok=True)
    return Context(project, project / job, torch.device("cpu"), threads, 1, 8 << 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micrographs", type=int, default=3)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    given = parser.parse_args()
    for name in given.levels:
        print(name, json.dumps(measure_level(given.micrographs, LEVELS[name], plain_context), indent=1), flush=True)


if __name__ == "__main__":
    main()
