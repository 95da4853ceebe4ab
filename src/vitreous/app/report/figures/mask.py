"""The mask's outline over the map it was made from."""

from __future__ import annotations

from pathlib import Path

from vitreous.app.report.drawing import central_slices, new_figure, show_slice
from vitreous.app.report.figure import Figure
from vitreous.app.report.record import job_parameters
from vitreous.io.mrc import read_map


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Central slices of the map with the mask's 0.5 contour."""
    mask = read_map(job_directory / "mask.mrc")
    density = read_map(project / job_parameters(job_directory)["input"])
    figure = new_figure(9, 3.3)
    panels = zip(central_slices(density.density.numpy()), central_slices(mask.density.numpy()), strict=True)
    for axes, ((name, image), (_, soft)) in zip(figure.subplots(1, 3), panels, strict=True):
        show_slice(axes, image, name, density.voxel_size)
        axes.contour(soft, levels=[0.5], colors=["#e39e21"], linewidths=1.2)
        axes.contour(soft, levels=[0.02], colors=["#e39e21"], linewidths=0.6, linestyles="dotted")
    caption = "Slices through the map; solid: where the mask is one half, dotted: where it ends. No density that "
    caption += "belongs to the particle should cross the solid line."
    return [Figure.from_matplotlib(figure, "mask", "Solvent mask", caption)]
