"""Pictures of an initial model: slices and projections of the map, agreement of the halves along the run."""

from __future__ import annotations

import re
from pathlib import Path

from vitreous.app.report.drawing import COLOURS, central_slices, new_figure, resolution_axis, show_slice
from vitreous.app.report.figure import Figure
from vitreous.io.mrc import read_map
from vitreous.io.relion import read_table


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Each map, and the FSC between pseudo-halves as the run went on."""
    maps = sorted(job_directory.glob("initial_model*.mrc"))
    return [*(_map(path) for path in maps), *_course(job_directory)]


def _map(path: Path) -> Figure:
    volume = read_map(path)
    density = volume.density.numpy()
    figure = new_figure(8.4, 5.8)
    for place, (name, section) in enumerate(central_slices(density), 1):
        show_slice(figure.add_subplot(2, 3, place), section, f"slice {name}", volume.voxel_size)
    for axis, name in enumerate(("along z", "along y", "along x")):
        projection = density.sum(axis)
        show_slice(figure.add_subplot(2, 3, 4 + axis), projection, f"projection {name}", volume.voxel_size)
    caption = (
        "Slices through the middle and projections of the first map. Expect the particle's outline and its largest "
        "domains, on a flat ground. The hand is arbitrary: no projection tells a map from its mirror image."
    )
    return Figure.from_matplotlib(figure, path.stem, "Initial model", caption)


def _course(job_directory: Path) -> list[Figure]:
    models = sorted(job_directory.glob("start*/run_it*_model.star"))
    if not models:
        return []
    figure = new_figure(7.0, 3.2)
    axes = figure.add_subplot(1, 1, 1)
    starts = sorted({path.parent.name for path in models})
    nyquist = 2.0
    for path in models:
        match = re.search(r"_it(\d+)_", path.name)
        table = read_table(path, "model_class_1")
        nyquist = float(table["resolution"][-1])
        last = path == max(one for one in models if one.parent == path.parent)
        colour = COLOURS[starts.index(path.parent.name) % len(COLOURS)]
        label = f"{path.parent.name}, iteration {int(match.group(1)) if match else 0}" if last else None
        axes.plot(
            table["frequency"], table["gold_standard_fsc"], color=colour, alpha=1.0 if last else 0.25, label=label
        )
    resolution_axis(axes, nyquist)
    axes.set(ylim=(-0.05, 1.05), ylabel="FSC of the two halves")
    axes.legend(fontsize=8, frameon=False)
    caption = (
        "Agreement of the maps from two halves of the running sums (faint: earlier iterations). Both halves were "
        "aligned to one reference, so this flatters; it says where detail comes in, not the resolution."
    )
    return [Figure.from_matplotlib(figure, "course", "Course of the initial model", caption)]
