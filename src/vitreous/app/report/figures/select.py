"""Class averages in the order of their scores, with the reason for each choice."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np

from vitreous.app.report.drawing import new_figure
from vitreous.app.report.figure import Figure
from vitreous.app.report.record import job_parameters
from vitreous.core.errors import InputError
from vitreous.io.mrc import read_array

_KEPT, _DROPPED = "#2e8b57", "#c0392b"
_COLUMNS, _MOST = 8, 64


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """The gallery; nothing where particles were not chosen by class averages."""
    path = job_directory / "reasons.json"
    if not path.is_file():
        return []
    reasons = json.loads(path.read_text())
    averages = _averages(project / str(job_parameters(job_directory)["input"]))
    shown = reasons[:_MOST]
    rows = -(-len(shown) // _COLUMNS)
    figure = new_figure(_COLUMNS * 1.45, rows * 2.05)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, one in zip(panels, shown, strict=False):
        image = averages[one["class"] - 1]
        low, high = np.percentile(image, [0.5, 99.8])
        axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), origin="lower")
        axes.set_xticks([])
        axes.set_yticks([])
        colour = _KEPT if one["kept"] else _DROPPED
        for spine in axes.spines.values():
            spine.set_color(colour)
            spine.set_linewidth(2.5)
        axes.set_title(f"{one['class']}: {100 * one['share']:.1f}%, score {one['score']:.2f}", fontsize=7, color=colour)
        axes.set_xlabel("\n".join(textwrap.wrap(_short(one), 28)[:4]), fontsize=5.5)
    kept = [one for one in reasons if one["kept"]]
    share = 100 * sum(one["share"] for one in kept)
    caption = f"{len(kept)} of {len(reasons)} classes kept (green), {share:.0f}% of the particles. The score is the "
    caption += "product of points for resolution, background, contrast, size, centring, wholeness, detail and number "
    caption += "of particles, each against the best classes of this run; the words say what cost most."
    if len(reasons) > _MOST:
        caption += f" The {len(reasons) - _MOST} classes with the lowest scores are not shown."
    return [Figure.from_matplotlib(figure, "selection", "Chosen classes", caption)]


def _averages(path: Path) -> np.ndarray:
    for ending in ("_data.star", "_optimiser.star"):
        if path.name.endswith(ending):
            return read_array(path.with_name(path.name.replace(ending, "_classes.mrcs")))[0].astype(np.float32)
    raise InputError(path, "is not the file of a classification", "Run the selection again.")


def _short(one: dict[str, object]) -> str:
    """What the title does not say already."""
    if one["kept"] and not str(one["reason"]).startswith(("kept in spite", "chosen")):
        return f"{one['resolution_A']:.1f} Å"
    return str(one["reason"])
