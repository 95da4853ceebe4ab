"""What the extracted particles look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vitreous.app.report.drawing import COLOURS, new_figure, show_slice
from vitreous.app.report.figure import Figure
from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.io.relion import read_dataset
from vitreous.io.stacks import ParticleStack

_COLUMNS, _ROWS = 10, 4
_AVERAGED = 2000  # images, evenly spread over the set
_LOWPASS = 15.0  # A


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Forty particles low-passed, the mean of many, and the mean's profile."""
    dataset = read_dataset(job_directory / "particles.star")
    images = ParticleStack(dataset, project)
    return [_gallery(images), _mean(images)]


def _gallery(images: ParticleStack) -> Figure:
    count = min(_COLUMNS * _ROWS, len(images))
    shown = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))
    particles = images[shown]
    shape = (images.box, images.box)
    resolution = max(_LOWPASS, 2.0 * images.pixel_size)
    smooth = to_real(to_fourier(particles) * lowpass(shape, images.pixel_size, resolution).float(), shape).numpy()
    figure = new_figure(_COLUMNS * 1.1, _ROWS * 1.15)
    panels = figure.subplots(_ROWS, _COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, image, index in zip(panels, smooth, shown, strict=False):
        low, high = np.percentile(image, [0.5, 99.5])
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower")
        axes.set_title(f"{index + 1}", fontsize=6, pad=1)
    caption = f"Particles spread evenly over the set, low-passed to {resolution:.0f} Å, protein white. A particle "
    caption += "should stand in the middle of most; neighbours at the rim are normal where particles lie dense."
    return Figure.from_matplotlib(figure, "particles", "Extracted particles", caption)


def _mean(images: ParticleStack) -> Figure:
    count = min(_AVERAGED, len(images))
    chosen = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))
    total = torch.zeros(images.box, images.box, dtype=torch.float64)
    for part in np.array_split(chosen, max(1, len(chosen) // 200)):
        total += images[part].to(torch.float64).sum(dim=0)
    mean = (total / len(chosen)).numpy()
    figure = new_figure(8, 3.2)
    left, right = figure.subplots(1, 2)
    show_slice(left, mean, f"mean of {len(chosen)} particles", images.pixel_size)
    middle = images.box // 2
    rows, columns = np.indices(mean.shape) - middle
    radius = np.hypot(rows, columns).round().astype(int)
    profile = np.bincount(radius.ravel(), mean.ravel()) / np.bincount(radius.ravel())
    right.plot(np.arange(middle) * images.pixel_size, profile[:middle], color=COLOURS[0])
    right.axhline(0.0, color="#888888", linewidth=0.6)
    right.set_xlabel("distance from the centre (Å)")
    right.set_ylabel("mean grey value (background spread = 1)")
    caption = "The mean of unaligned particles: a bright, round, centred spot whose radius is the particle's. A dark "
    caption += "spot means that the contrast was not inverted, an off-centre one that coordinates are shifted."
    return Figure.from_matplotlib(figure, "mean", "Mean of the particles", caption)
