"""How the cost of an iteration grows, and what of it is making maps in a large box.

    python -m benchmarks.refinement_growth [--work DIR] [--particles 400]

First: CPU seconds of one iteration of 2D classification (simulated cages, box 64, one thread), from a state of its own
kind, over more particles, more classes and finer angles; the exponent is that of a power law through all points (1:
proportional). Second: one iteration of auto-refine in a box of 256 (O), split into what goes with the particles and
what does not: preparing references, symmetry, solving the halves and comparing them. Its share at larger numbers of
particles follows, as the one part is proportional to them. Figures go to benchmarks/results/refinement_growth.json
and docs/refinement_growth.png.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.versus_relion.dataset import Settings, SimulatedSet, cage, simulate
from matplotlib.figure import Figure

from vitreous.io.mrc import read_map
from vitreous.job import Context
from vitreous.jobs._particles import read_particles
from vitreous.methods.refinement.auto_refine import auto_refine
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, split_halves
from vitreous.methods.refinement.classify_2d import Options2D, classify_2d, pass_over, renew
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.statistics import class_distribution

RESULTS = Path(__file__).parent / "results" / "refinement_growth.json"
PICTURE = Path(__file__).parents[1] / "docs" / "refinement_growth.png"
_SETTLED = 4  # iterations after which posteriors are about as sharp as they will be
_MAPS = ("prepare_volume", "complete", "compare_halves", "combine")  # the work that does not grow with particles


def particles_of(images: SimulatedSet) -> ParticleSet:
    """The particles of a simulated set, read from disk."""
    context = Context(images.project, images.project, torch.device("cpu"), 1, 1, 4 << 30)
    return read_particles(images.particles, context, ctf=True, diameter=images.diameter)[1]


def iteration_seconds(particles: ParticleSet, n: int, options: Options2D) -> float:
    """CPU seconds of one settled iteration over the first n particles."""
    *_, state = classify_2d(particles, Poses.unknown(len(particles)), replace(options, iterations=_SETTLED))
    start = time.process_time()
    state, sums, statistics = pass_over(particles, replace(state, iteration=_SETTLED), np.arange(n), options)
    renew(replace(state, distribution=class_distribution(statistics)), sums, statistics, particles, options)
    return time.process_time() - start


def growth(work: Path) -> dict[str, Any]:
    """CPU seconds over particles, classes and orientations, and the exponent of each."""
    images = simulate(work / "growth", cage(), Settings(4000))
    particles = particles_of(images)
    usual = Options2D(10, images.diameter + 10.0)
    cases = {
        "particles": {n: (n, usual) for n in (500, 1000, 2000, 4000)},
        "classes": {k: (1000, replace(usual, n_classes=k)) for k in (5, 10, 20, 40)},
        "orientations": {round(360 / step): (1000, replace(usual, psi_step=step)) for step in (24.0, 12.0, 6.0, 3.0)},
    }
    result: dict[str, Any] = {}
    for name, settings in cases.items():
        seconds = {size: iteration_seconds(particles, n, options) for size, (n, options) in settings.items()}
        slope = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0]
        result[name] = {"cpu_s": seconds, "exponent": float(slope)}
        print(name, result[name], flush=True)
    return result


def maps_share(work: Path, n: int, box: int = 256) -> dict[str, Any]:
    """Second iteration of auto-refine in a large box: its CPU seconds, and those of making maps."""
    images = simulate(work / "large", cage(), Settings(n, box=box, pixel_size=0.8, dose=20.0))
    particles = particles_of(images)
    options = AutoRefineOptions("O", images.diameter + 10.0, ini_high=5.0, max_iterations=2)
    reference = read_map(images.project / images.maps[0]).density
    halves = split_halves(n, 1)
    states = auto_refine(particles, Poses.unknown(n), halves, reference, options)
    next(states)
    profile = cProfile.Profile(time.process_time)
    state = profile.runcall(next, states)
    times = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    maps = sum(row[3] for (_, _, name), row in times.items() if name in _MAPS)
    whole = max(row[3] for row in times.values())
    each = (whole - maps) / n
    result = {"particles": n, "box": box, "max_shell": state.max_shell, "iteration_cpu_s": whole, "maps_cpu_s": maps}
    result["particle_cpu_s"] = each
    result["share_of_maps"] = {str(size): maps / (maps + each * size) for size in (n, 2000, 10_000, 50_000)}
    return result


def draw(result: dict[str, Any]) -> None:
    """Each growth beside proportionality."""
    figure = Figure(figsize=(9.0, 3.0), layout="constrained", facecolor="white")
    for axes, (name, row) in zip(figure.subplots(1, 3), result["growth"].items(), strict=True):
        sizes, seconds = [int(size) for size in row["cpu_s"]], list(row["cpu_s"].values())
        axes.loglog(sizes, seconds, "o-", color="#0b6e99", label="measured")
        axes.loglog(
            sizes, [seconds[0] * size / sizes[0] for size in sizes], "--", color="#8a8f98", label="proportional"
        )
        axes.set(xlabel=name, title=f"exponent {row['exponent']:.2f}")
    figure.axes[0].set_ylabel("CPU s an iteration")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("refinement_growth"))
    parser.add_argument("--particles", type=int, default=400, help="in the large box")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = {"growth": growth(args.work.resolve()), "large_box": maps_share(args.work.resolve(), args.particles)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    draw(json.loads(RESULTS.read_text()))
    print(json.dumps(result["large_box"], indent=1))


if __name__ == "__main__":
    main()
