"""Figures of benchmarks: seconds by iteration and phase of several results, and the heat map of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitreous.pipeline.benchmark.run import PHASES


def draw_iterations(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds of each iteration, a line a result, and what they were spent on."""
    figure = Figure(figsize=(7, 4.5 + 0.3 * len(results)), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=[3.0, 0.6 + 0.3 * len(results)])
    for one in results:
        numbers = [int(number) for number in one["iteration_s"]]
        label = f"{one['settings']['name']}: {one['figure_of_merit_s']:.1f} s"
        axes.plot(numbers, list(one["iteration_s"].values()), marker="o", markersize=3, label=label)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    _draw_phases(below, results)
    figure.savefig(path, dpi=150)


def _draw_phases(axes: Axes, results: Sequence[dict[str, Any]]) -> None:
    """What the iterations' seconds were spent on, a bar a result."""
    names = [one["settings"]["name"] for one in results]
    left = np.zeros(len(results))
    for phase in (*PHASES, "files and the rest"):
        spent = np.array([one["phase_s"].get(f"of these {phase}", 0.0) for one in results])
        axes.barh(range(len(results)), spent, left=left, label=phase)
        left += spent
    axes.set_yticks(range(len(results)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend(fontsize="x-small", ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)


def draw_sweep(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Figure of merit by ranks and threads, of the best pool each."""
    best: dict[tuple[int, int], float] = {}
    for one in results:
        place = (one["settings"]["ranks"], one["settings"]["threads"])
        best[place] = min(one["figure_of_merit_s"], best.get(place, np.inf))
    ranks, threads = (sorted({place[axis] for place in best}) for axis in (0, 1))
    values = np.array([[best.get((r, t), np.nan) for t in threads] for r in ranks])
    figure = Figure(figsize=(1.5 + len(threads), 1.5 + 0.8 * len(ranks)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(values, cmap="viridis_r", aspect="auto")
    axes.set_xticks(range(len(threads)), [str(one) for one in threads])
    axes.set_yticks(range(len(ranks)), [str(one) for one in ranks])
    axes.set_xlabel("threads a rank")
    axes.set_ylabel("ranks")
    middle = float(np.nanmean(values))
    for row, column in np.argwhere(np.isfinite(values)):
        colour = "white" if values[row, column] > middle else "black"
        axes.text(column, row, f"{values[row, column]:.1f}", ha="center", va="center", color=colour)
    figure.colorbar(shown, label="seconds")
    figure.savefig(path, dpi=150)
