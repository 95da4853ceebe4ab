"""Local resolution on slices of the map, and its distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.app.report.drawing import COLOURS, central_slices, new_figure, scale_bar
from vitreous.app.report.figure import Figure
from vitreous.app.report.record import job_parameters
from vitreous.io.mrc import read_map


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Slices coloured by local resolution where the mask is, beside a histogram over its voxels."""
    local = read_map(job_directory / "relion_locres.mrc")
    filtered = read_map(job_directory / "relion_locres_filtered.mrc").density.numpy()
    mask = read_map(project / job_parameters(job_directory)["mask"]).density.numpy()
    resolution = local.density.numpy()
    inside = resolution[mask > 0.5]
    low, high = np.percentile(inside, [2, 98])
    high = max(high, low + 0.1)
    figure = new_figure(11.5, 3.3)
    grid = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.15])
    panels = zip(central_slices(filtered), central_slices(resolution), central_slices(mask), strict=True)
    for axes, ((name, image), (_, colour), (_, soft)) in zip(grid[:3], panels, strict=True):
        axes.imshow(image, cmap="gray", origin="lower", vmin=np.percentile(image, 1), vmax=np.percentile(image, 99.8))
        shown = axes.imshow(
            colour, cmap="viridis_r", origin="lower", vmin=low, vmax=high, alpha=np.clip(soft, 0, 1) * 0.55
        )
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
        scale_bar(axes, image.shape[-1], local.voxel_size)
    figure.colorbar(shown, ax=grid[2], label="Å", shrink=0.8)
    grid[3].hist(inside, bins=40, color=COLOURS[0])
    grid[3].axvline(float(np.median(inside)), color=COLOURS[1], linewidth=1)
    grid[3].set_xlabel("local resolution (Å)")
    grid[3].set_ylabel("voxels in the mask")
    caption = f"Half of the masked volume is better than {np.median(inside):.2f} Å. The core is usually best, "
    caption += "flexible rims worst."
    return [Figure.from_matplotlib(figure, "local_resolution", "Local resolution", caption)]
