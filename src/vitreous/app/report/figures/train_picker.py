"""How a picker was trained, how well it agrees with picks it has not seen, and what it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.ticker import MaxNLocator

from vitreous.app.report.drawing import COLOURS, INK, new_figure, show_slice
from vitreous.app.report.figure import Figure
from vitreous.data.table import Table
from vitreous.io.picker_file import PickerRecord, read_picker
from vitreous.io.relion import read_table
from vitreous.methods.picking.network import PIXELS_PER_DIAMETER
from vitreous.runtime.checkpoint import load_checkpoint

_PICKED = "#7ddf64"


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Curves of training, and when it is done, precision against recall and a held-out micrograph."""
    made = [_training(read_table(job_directory / "training.star", "epochs"), job_directory)]
    example = load_checkpoint(job_directory / "example.npz")
    if example is not None and (job_directory / "picker.pt").is_file():
        made.append(_example(example, read_picker(job_directory / "picker.pt")[1]))
    return made


def _training(epochs: Table, directory: Path) -> Figure:
    figure = new_figure(11, 3.6)
    left, right = figure.subplots(1, 2)
    number = epochs["vitreousEpoch"]
    left.plot(number, epochs["vitreousArea"], ".-", color=COLOURS[0], label="area under precision-recall")
    left.plot(number, epochs["vitreousPrecision"], color=COLOURS[4], linewidth=1.0, label="precision")
    left.plot(number, epochs["vitreousRecall"], color=COLOURS[3], linewidth=1.0, label="recall")
    best = int(np.argmax(epochs["vitreousArea"]))
    left.axvline(float(number[best]), color=INK, linewidth=0.8, linestyle="--")
    left.set_ylim(0, 1.02)
    left.set_ylabel("on held-out micrographs")
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False, fontsize=8, loc="lower right")
    loss = left.twinx()
    loss.plot(number, epochs["vitreousLoss"], color=COLOURS[1], linewidth=1.0, linestyle=":")
    loss.set_ylabel("loss (dotted)", color=COLOURS[1])
    if (directory / "precision_recall.star").is_file():
        _curve(right, read_table(directory / "precision_recall.star", "curve"))
    else:
        right.set_axis_off()
    caption = "Left: agreement with the picks of micrographs it never learns from; the epoch at the dashed line is "
    caption += "kept. Right: precision against recall there. Where the picks are not complete, particles that nobody "
    caption += "picked count as false: a plateau below 1 may be theirs."
    return Figure.from_matplotlib(figure, "training", "Training", caption)


def _curve(axes: Axes, curve: Table) -> None:
    recall, precision, score = (curve[name] for name in ("vitreousRecall", "vitreousPrecision", "pick_score"))
    axes.plot(recall, precision, color=COLOURS[0], linewidth=1.8)
    even = int(np.searchsorted(-score, 0.0, side="right")) - 1
    if even >= 0:
        axes.plot(recall[even], precision[even], "o", color=COLOURS[1], label="even odds")
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall of the picks")
    axes.set_ylabel("precision")


def _example(example: dict[str, np.ndarray], record: PickerRecord) -> Figure:
    figure = new_figure(11, 5.6)
    left, right = figure.subplots(1, 2)
    image = example["image"]
    for axes, title in ((left, "picks that are known"), (right, "log-odds of what it finds")):
        show_slice(axes, -image if record.dark_particles else image, title, record.pixel_size)
    _circles(left, example["picks"], np.full(len(example["picks"]), 1.0), _PICKED)
    shown = example["scores"] > 0.0
    _circles(right, example["places"][shown], np.full(int(shown.sum()), 1.0), _PICKED)
    unlikely = (example["scores"] <= 0.0) & (example["scores"] > -4.0)
    _circles(right, example["places"][unlikely], np.full(int(unlikely.sum()), 0.6), COLOURS[3])
    for (y, x), score in zip(example["places"][shown], example["scores"][shown], strict=True):
        right.text(x, y, f"{score:.0f}", color="white", fontsize=6, ha="center", va="center")
    caption = "A held-out micrograph as the network sees it. Green: as likely a particle as not, or likelier; yellow: "
    caption += "less likely. Green circles that nobody picked should hold particles, yellow ones should not."
    return Figure.from_matplotlib(figure, "example", "A micrograph it has not learned from", caption)


def _circles(axes: Axes, places: np.ndarray, size: np.ndarray, colour: str) -> None:
    diameters = size * PIXELS_PER_DIAMETER
    circles = EllipseCollection(
        diameters, diameters, np.zeros(len(places)), units="xy", offsets=places[:, ::-1], transOffset=axes.transData,
        facecolors="none", edgecolors=colour, linewidths=0.9,
    )  # fmt: skip
    axes.add_collection(circles)
