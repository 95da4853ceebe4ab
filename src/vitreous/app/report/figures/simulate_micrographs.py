"""Simulated micrographs: the first one, its power spectrum, views and the true map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.app.report.figure import Figure
from vitreous.app.report.figures._simulation import micrograph_figure, truth_figure, views_figure
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """The first micrograph with its particles, all views, the true map."""
    rows = read_dataset(job_directory / "truth_particles.star").rows
    name = str(read_dataset(job_directory / "micrographs.star").rows["micrograph_name"][0])
    image, pixel_size = read_image(project / name)
    mine = rows["micrograph_name"] == name
    coordinates = np.stack([rows["coordinate_x"][mine], rows["coordinate_y"][mine]], 1)
    return [
        micrograph_figure(image, pixel_size, name, coordinates),
        views_figure(rows),
        truth_figure(job_directory),
    ]
