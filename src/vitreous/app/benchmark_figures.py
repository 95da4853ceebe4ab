"""Figures of benchmarks: seconds by iteration and phase, the heat map of a sweep, layouts of motion correction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitreous.app.report.drawing import COLOURS
from vitreous.pipeline.benchmark.run import PHASES
from vitreous.runtime.usage import QUANTITIES


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


def draw_layouts(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Movies an hour of each layout, and what the machine was busy with, second by second."""
    seen = [name for name in QUANTITIES if any(name in sample for one in results for sample in one["samples"])]
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(results) + 1.6 * len(seen)), layout="constrained")
    heights = [0.35 * len(results) + 0.5, *([1.5] * len(seen))]
    panels = figure.subplots(1 + len(seen), 1, squeeze=False, height_ratios=heights)[:, 0]
    kinds = list(dict.fromkeys(one["layout"]["kind"] for one in results))
    colours = [COLOURS[kinds.index(one["layout"]["kind"]) % len(COLOURS)] for one in results]
    workers = sorted({one["layout"]["workers"] for one in results})
    names = [f"{one['layout']['kind']}, {one['layout']['workers']}" for one in results]
    rates = [one["movies_per_hour"] for one in results]
    bars = panels[0].barh(names, rates, color=colours)
    panels[0].bar_label(bars, [f"{rate:.0f}" for rate in rates], padding=3, fontsize=8)
    panels[0].set_xlim(0, 1.12 * max(rates))
    panels[0].set_xlabel("movies an hour (layout, workers)", fontsize=9)
    panels[0].invert_yaxis()
    for axes, name in zip(panels[1:], seen, strict=True):
        for one, colour in zip(results, colours, strict=True):
            samples = [sample for sample in one["samples"] if name in sample]
            style = ("-", "--", ":", "-.")[workers.index(one["layout"]["workers"]) % 4]
            label = f"{one['layout']['kind']}, {one['layout']['workers']}"
            times, values = [s["second"] for s in samples], [s[name] for s in samples]
            axes.plot(times, values, style, color=colour, linewidth=1.3, label=label)
        axes.set_title(QUANTITIES[name], fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    panels[-1].set_xlabel("seconds since the start", fontsize=9)
    if seen:
        panels[1].legend(fontsize=7, ncols=min(3, len(results)), frameon=False)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=130)
