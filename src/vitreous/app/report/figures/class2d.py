"""Pictures of a 2D classification: the gallery of averages by size, and how the run went."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vitreous.app.report.drawing import COLOURS, INK, new_figure, scale_bar
from vitreous.app.report.figure import Figure
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_table

_MOST = 100


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """The averages of the last iteration and the course of the classification."""
    models = sorted(job_directory.glob("run_it*_model.star"))
    if not models:
        return []
    return [_gallery(models[-1]), _course(models)]


def _gallery(model: Path) -> Figure:
    classes = read_table(model, "model_classes")
    stack, pixel_size = read_image(Path(str(model).replace("_model.star", "_classes.mrcs")))
    order = np.argsort(-classes["class_distribution"], kind="stable")[:_MOST]
    columns = min(10, len(order))
    rows = -(-len(order) // columns)
    figure = new_figure(1.15 * columns, 1.35 * rows)
    side = stack.shape[-1]
    across, down = 1.06 * side, 1.28 * side  # from one picture to the next, in its pixels; a gap for its words
    axes = figure.add_subplot()  # one for all: a hundred axes take seconds to lay out
    for place, k in enumerate(order):
        image = stack[k]
        left, bottom = place % columns * across, -(place // columns) * down
        low, high = np.percentile(image, [1, 99.8])
        shown = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-12), "interpolation": "bilinear"}
        axes.imshow(image, origin="lower", extent=(left, left + side, bottom, bottom + side), **shown)
        share, resolution = classes["class_distribution"][k], classes["estimated_resolution"][k]
        fineness = f"{resolution:.0f} Å" if resolution < 500 else "no detail"
        words = f"{k + 1}: {100 * share:.1f}%\n{fineness}"
        axes.text(left + side / 2, bottom + 1.02 * side, words, fontsize=6.5, color=INK, ha="center", va="bottom")
    scale_bar(axes, side, pixel_size)
    axes.set(xlim=(0, columns * across), ylim=(bottom, down))
    axes.set_axis_off()
    caption = (
        "Class averages by share of the particles, with class number and the resolution where signal equals noise. "
        "Good classes show the particle with inner detail on a flat ground; blurred discs, rings and edges are junk."
    )
    return Figure.from_matplotlib(figure, "classes", "Class averages", caption)


def _course(models: list[Path]) -> Figure:
    iterations: list[int] = []
    resolution: list[float] = []
    sharpness: list[float] = []
    used: list[float] = []
    for path in models:
        match = re.search(r"_it(\d+)_", path.name)
        general, classes = read_table(path, "model_general"), read_table(path, "model_classes")
        share = np.maximum(classes["class_distribution"], 1e-12)
        iterations.append(int(match.group(1)) if match else len(iterations))
        resolution.append(float(general["rlnCurrentResolution"][0]))
        sharpness.append(float(general["rlnAveragePmax"][0]))
        used.append(float(np.exp(-(share * np.log(share)).sum())))
    figure = new_figure(9.0, 2.8)
    for place, (values, label) in enumerate(
        [
            (resolution, "resolution of the best class (Å)"),
            (sharpness, "mean largest probability"),
            (used, "classes in effect"),
        ],
        1,
    ):
        axes = figure.add_subplot(1, 3, place)
        axes.plot(iterations, values, "o-", color=COLOURS[place - 1], markersize=3)
        axes.set(xlabel="iteration", title=label)
        axes.title.set_fontsize(9)
        if place > 1:
            axes.set_ylim(bottom=0)
    caption = (
        "Resolution should improve and level off; the largest probability says how sure the alignments are; classes in "
        "effect (exponential of the entropy) says over how many classes the particles are spread."
    )
    return Figure.from_matplotlib(figure, "course", "Course of the classification", caption)
