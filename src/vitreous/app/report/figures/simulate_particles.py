"""Simulated particles: some images, views and the true map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.app.report.figure import Figure
from vitreous.app.report.figures._simulation import gallery_figure, truth_figure, views_figure
from vitreous.io.relion import read_dataset
from vitreous.io.stacks import ParticleStack

_SHOWN = 8


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """The first images in the order of their defocus, all views, the true map."""
    dataset = read_dataset(job_directory / "truth_particles.star")
    rows = dataset.rows
    order = np.argsort(rows["defocus_u"], kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).astype(np.int64)]
    stack = ParticleStack(dataset, project)
    low, high = rows["defocus_u"][chosen[0]] / 1e4, rows["defocus_u"][chosen[-1]] / 1e4
    caption = f"Particles from the smallest defocus ({low:.2f} µm, left) to the largest ({high:.2f} µm, right); above "
    caption += "as they are, below low-passed to 10 Å. Protein is white."
    return [
        gallery_figure(stack[chosen].numpy(), stack.pixel_size, caption),
        views_figure(rows),
        truth_figure(job_directory),
    ]
