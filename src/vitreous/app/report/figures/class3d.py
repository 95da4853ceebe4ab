"""Pictures of a 3D classification: each class's slices, resolution and views, and how the run went."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Int
from matplotlib.ticker import MaxNLocator

from vitreous.app.report.drawing import (
    COLOURS,
    INK,
    central_slices,
    new_figure,
    resolution_axis,
    show_slice,
    show_views,
)
from vitreous.app.report.figure import Figure
from vitreous.data.table import Table
from vitreous.io.mrc import read_map
from vitreous.io.relion import read_dataset, read_table

_MOST = 12  # classes shown one by one, the largest first


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Classes of the last whole iteration, and the course of the classification."""
    models = sorted(job_directory.glob("run_it*_model.star"))
    if not models:
        return []
    last = models[-1]
    classes = read_table(last, "model_classes")
    order = np.argsort(-classes["class_distribution"], kind="stable")[:_MOST]
    return [_slices(last, classes, order), _signal(last, classes, order), _views(last, order), *_course(models)]


def _name(k: int, classes: Table) -> str:
    resolution = float(classes["estimated_resolution"][k])
    fineness = f"{resolution:.1f} Å" if resolution < 500 else "no detail"
    return f"class {k + 1}: {100 * float(classes['class_distribution'][k]):.1f}%, {fineness}"


def _slices(model: Path, classes: Table, order: Int[np.ndarray, "k"]) -> Figure:
    figure = new_figure(8.0, 2.75 * len(order))
    for row, k in enumerate(order):
        volume = read_map(Path(str(model).replace("_model.star", f"_class{k + 1:03d}.mrc")))
        for column, (name, image) in enumerate(central_slices(volume.density.numpy())):
            axes = figure.add_subplot(len(order), 3, 3 * row + column + 1)
            show_slice(axes, image, _name(k, classes) if column == 0 else name, volume.voxel_size)
    caption = (
        "Central slices (xy, xz, yz) of each class, the largest first, each in its own grey scale. Classes that differ "
        "in place and shape of a domain are real; one that is the same map at lower resolution is what is left over."
    )
    return Figure.from_matplotlib(figure, "classes", "The classes", caption)


def _signal(model: Path, classes: Table, order: Int[np.ndarray, "k"]) -> Figure:
    figure = new_figure(7.0, 3.6)
    axes = figure.subplots()
    for place, k in enumerate(order):
        curve = read_table(model, f"model_class_{k + 1}")
        known = curve["rlnSsnrMap"] > 0
        colour = COLOURS[place % len(COLOURS)]
        style = ("-", "--", ":")[place // len(COLOURS) % 3]
        axes.plot(curve["frequency"][known], curve["rlnSsnrMap"][known], style, color=colour, label=_name(k, classes))
    axes.axhline(1.0, color=INK, linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.set_ylim(bottom=1e-3)
    axes.set_ylabel("signal-to-noise ratio (data against prior)")
    resolution_axis(axes, 1.0 / float(curve["frequency"][-1]))
    axes.legend(frameon=False, fontsize=7)
    caption = (
        "How far each class is known: its resolution is where the data no longer outweigh the prior (dashed line). "
        "There are no independent halves here, so this flatters; refine a class to learn its resolution."
    )
    return Figure.from_matplotlib(figure, "ssnr", "Signal-to-noise ratio by class", caption)


def _views(model: Path, order: Int[np.ndarray, "k"]) -> Figure:
    rows = read_dataset(Path(str(model).replace("_model.star", "_data.star"))).rows
    columns = min(3, len(order))
    lines = -(-len(order) // columns)
    figure = new_figure(3.3 * columns, 2.0 * lines)
    for place, k in enumerate(order, 1):
        axes = figure.add_subplot(lines, columns, place, projection="mollweide")
        mine = rows["class_number"] == k + 1
        show_views(axes, rows["rot"][mine], rows["tilt"][mine])
        axes.set_xticklabels([])
        axes.set_yticklabels([])
        axes.set_title(f"class {k + 1}: {int(mine.sum())} particles", fontsize=8, color=INK)
    caption = (
        "Directions of view of each class's particles within the asymmetric unit (equal-area projection). A class that "
        "holds a few views alone is sorted by orientation, not by structure."
    )
    return Figure.from_matplotlib(figure, "views", "Orientations by class", caption)


def _course(models: list[Path]) -> list[Figure]:
    """Occupancy, resolution by class, and what changed, by iteration."""
    iterations: list[int] = []
    shares, resolutions, general = [], [], []
    for path in models:
        match = re.search(r"_it(\d+)_", path.name)
        classes = read_table(path, "model_classes")
        optimiser = read_table(Path(str(path).replace("_model", "_optimiser")), "optimiser_general").row(0)
        iterations.append(int(match.group(1)) if match else len(iterations) + 1)
        shares.append(classes["class_distribution"])
        resolutions.append(np.minimum(classes["estimated_resolution"], 200.0))
        changes = [float(optimiser[f"rlnChangesOptimal{what}"]) for what in ("Classes", "Orientations", "Offsets")]
        general.append([float(read_table(path, "model_general")["rlnAveragePmax"][0]), *changes])
    return [_occupancy(iterations, np.stack(shares), np.stack(resolutions)), _progress(iterations, np.array(general))]


def _occupancy(iterations: list[int], shares: np.ndarray, resolutions: np.ndarray) -> Figure:
    figure = new_figure(9.0, 3.2)
    left, right = figure.subplots(1, 2)
    order = np.argsort(-shares[-1], kind="stable")
    names = [f"class {k + 1}" for k in order]
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(order))]
    left.stackplot(iterations, *(100 * shares[:, order].T), labels=names, colors=colours, edgecolor="white", lw=0.6)
    left.set(xlabel="iteration", ylabel="particles (%)", ylim=(0, 100))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place, k in enumerate(order):
        right.plot(iterations, resolutions[:, k], "o-", color=colours[place], markersize=3, label=names[place])
    right.set(xlabel="iteration", ylabel="resolution (Å)")
    right.set_ylim(bottom=0)
    if len(order) <= _MOST:
        right.legend(frameon=False, fontsize=7)
    caption = (
        "Left: share of the particles in each class. Right: resolution of each class. Both should settle; a class that "
        "dwindles to nothing says that fewer would do."
    )
    return Figure.from_matplotlib(figure, "occupancy", "Class occupancy", caption)


def _progress(iterations: list[int], values: np.ndarray) -> Figure:
    """values: by iteration, mean largest probability and changes of classes, orientations and offsets."""
    figure = new_figure(9.6, 2.6)
    titles = ("mean largest probability", "changed class (%)", "poses moved (degrees)", "offsets moved (Å)")
    for place, (axes, title) in enumerate(zip(figure.subplots(1, 4), titles, strict=True)):
        # the first iteration's changes are against no poses at all
        first = 1 if place and len(iterations) > 1 else 0
        scale = 100.0 if place == 1 else 1.0
        axes.plot(iterations[first:], scale * values[first:, place], "o-", color=COLOURS[place], markersize=3)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
    caption = (
        "How sure the assignments are, and how much each iteration still changes: particles that moved to another "
        "class, mean change of orientation, rms change of offsets. Converged where these no longer fall."
    )
    return Figure.from_matplotlib(figure, "course", "Course of the classification", caption)
