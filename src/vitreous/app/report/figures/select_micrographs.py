"""What is known of each micrograph in the order of acquisition, with the limits and what fails them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vitreous.app.report.drawing import COLOURS, INK, new_figure
from vitreous.app.report.figure import Figure
from vitreous.io.relion import read_tables

_KEPT, _REJECTED = COLOURS[0], COLOURS[1]
_LABELS = {
    "ctf_resolution": ("CTF fits to (Å)", 1.0),
    "ctf_figure_of_merit": ("figure of merit", 1.0),
    "defocus": ("defocus (µm)", 1e-4),
    "astigmatism": ("astigmatism (Å)", 1.0),
    "motion_total": ("motion (Å)", 1.0),
    "motion_early": ("early motion (Å)", 1.0),
    "ice_ring": ("ice ring", 1.0),
}


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """One panel a quantity over the micrographs' order, a histogram beside each."""
    tables = read_tables(job_directory / "judged.star")
    judged = tables["judged"]
    limits = {}
    if "limits" in tables:
        bounds = tables["limits"]
        columns = (bounds[name] for name in ("vitreousQuantity", "vitreousLeast", "vitreousGreatest"))
        limits = {str(name): (float(low), float(high)) for name, low, high in zip(*columns, strict=True)}
    shown = [name for name in _LABELS if name in judged]
    kept = judged["selected"].astype(bool)
    figure = new_figure(10.0, 1.7 * len(shown) + 0.6)
    panels = figure.subplots(len(shown), 2, squeeze=False, width_ratios=[5, 1], sharey="row")
    for (left, right), name in zip(panels, shown, strict=True):
        label, scale = _LABELS[name]
        values = judged[name].astype(np.float64) * scale
        draw_in_order(left, right, values, kept)
        left.set_ylabel(label, fontsize=9)
        for bound in limits.get(name, ()):
            if np.isfinite(bound):
                for axes in (left, right):
                    axes.axhline(bound * scale, color=INK, linewidth=0.8, linestyle="--")
    panels[-1][0].set_xlabel("micrograph, in the order of the file")
    caption = (
        f"{int(kept.sum())} of {len(kept)} micrographs kept (blue); what fails a limit (dashed) is red in every panel. "
    )
    caption += "A step or a slope in the order of acquisition is the microscope: drift of alignment, ice that grows, a "
    caption += "grid square that was bad."
    return [Figure.from_matplotlib(figure, "micrographs", "Micrographs in order", caption)]


def draw_in_order(left: Axes, right: Axes, values: np.ndarray, kept: np.ndarray) -> None:
    """Values against their order, and their histogram beside it; what is not kept is red."""
    order = np.arange(1, len(values) + 1)
    known = np.isfinite(values)
    for chosen, colour in ((kept & known, _KEPT), (~kept & known, _REJECTED)):
        left.plot(order[chosen], values[chosen], ".", color=colour, markersize=5 if len(values) < 500 else 2)
    if known.any():
        low, high = np.percentile(values[known], [0.5, 99.5])
        bins = np.linspace(low, high if high > low else low + 1.0, 30)
        groups = [values[kept & known], values[~kept & known]]
        right.hist(groups, bins=list(bins), orientation="horizontal", stacked=True, color=[_KEPT, _REJECTED])
    left.set_xlim(0, len(values) + 1)
    left.ticklabel_format(axis="y", useOffset=False)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xticks([])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
