"""Pictures of simulated data: a micrograph with its particles and power spectrum, motion, views, the true map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes

from vitreous.app.report.drawing import COLOURS, INK, central_slices, new_figure, scale_bar, show_slice
from vitreous.app.report.figure import Figure
from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.data.table import Table
from vitreous.io.mrc import read_map

_TILE = 256  # pixels of the tiles whose power spectra are averaged


def truth_figure(job_directory: Path) -> Figure:
    """Central slices of truth.mrc."""
    volume = read_map(job_directory / "truth.mrc")
    figure = new_figure(9, 3.3)
    for axes, (name, image) in zip(figure.subplots(1, 3), central_slices(volume.density.numpy()), strict=True):
        show_slice(axes, image, name, volume.voxel_size)
    caption = "Central slices of the potential (V) that the images are made from, the displaced ice taken off: what a "
    caption += "perfect reconstruction would show."
    return Figure.from_matplotlib(figure, "truth", "True map", caption)


def views_figure(particles: Table) -> Figure:
    """Where the true viewing directions lie, on an equal-area map."""
    figure = new_figure(6, 3.2)
    axes = figure.subplots()
    axes.scatter(particles["rot"], np.cos(np.radians(particles["tilt"])), s=5, color=COLOURS[0], alpha=0.6)
    axes.set(xlim=(-180, 180), ylim=(-1, 1), xlabel="rot (degrees)", ylabel="cos tilt")
    axes.set_xticks(range(-180, 181, 60))
    caption = f"Viewing directions of {particles.n_rows} particles; in these axes equal areas are equally likely, so "
    caption += "without preferred orientation the points are spread evenly."
    return Figure.from_matplotlib(figure, "views", "True views", caption)


def micrograph_figure(
    micrograph: Float[np.ndarray, "y x"], pixel_size: float, name: str, coordinates: Float[np.ndarray, "n 2"]
) -> Figure:
    """A micrograph as the eye sees it (low-passed to 10 A), particles marked, beside its power spectrum."""
    figure = new_figure(10.5, 5.2)
    left, right = figure.subplots(1, 2)
    image = torch.from_numpy(np.ascontiguousarray(micrograph, dtype=np.float32))
    shape = (image.shape[0], image.shape[1])
    smooth = to_real(to_fourier(image - image.mean()) * lowpass(shape, pixel_size, max(10.0, 4 * pixel_size)), shape)
    show_slice(left, smooth.numpy(), f"{Path(name).stem}, low-passed to 10 Å", pixel_size)
    left.scatter(coordinates[:, 0], coordinates[:, 1], s=10, facecolors="none", edgecolors=COLOURS[3], linewidths=0.8)
    _show_spectrum(right, image, pixel_size)
    caption = "Left: protein is dark; dots mark the true positions. Right: logarithm of the power spectrum, mean of "
    caption += "overlapping tiles, its radial mean taken off: the Thon rings that CTF estimation fits."
    return Figure.from_matplotlib(figure, "micrograph", "A simulated micrograph", caption)


def mean_spectrum(image: Float[torch.Tensor, "y x"], tile: int) -> Float[np.ndarray, "tile tile"]:
    """Mean power of half-overlapping tiles, zero frequency in the middle."""
    tiles = image.unfold(0, tile, tile // 2).unfold(1, tile, tile // 2).reshape(-1, tile, tile)
    tiles = tiles - tiles.mean((1, 2), keepdim=True)
    window = torch.hann_window(tile, periodic=False)
    power = torch.fft.fft2(tiles * window[:, None] * window).abs().square().mean(0)
    return np.asarray(torch.fft.fftshift(power).numpy())


def _show_spectrum(axes: Axes, image: torch.Tensor, pixel_size: float) -> None:
    tile = min(_TILE, *image.shape)
    logarithm = np.log(mean_spectrum(image, tile) + 1e-12)
    y, x = np.indices(logarithm.shape) - tile // 2
    shell = np.rint(np.hypot(y, x)).astype(np.int64)
    radial = np.bincount(shell.ravel(), logarithm.ravel()) / np.bincount(shell.ravel())
    # A running mean over rings is the background; what is left are the rings.
    width = max(tile // 12, 3)
    background = np.convolve(np.pad(radial, width, mode="edge"), np.ones(2 * width + 1) / (2 * width + 1), "valid")
    rings = np.where(shell < 4, 0.0, logarithm - background[shell])
    low, high = np.percentile(rings[shell < tile // 2], [2, 99])
    axes.imshow(rings, cmap="gray", vmin=low, vmax=high, origin="lower")
    axes.set_title(f"power spectrum, edge {2 * pixel_size:.2g} Å", fontsize=9, color=INK)
    axes.set_axis_off()


def gallery_figure(images: Float[np.ndarray, "n box box"], pixel_size: float, caption: str) -> Figure:
    """Rows of particle images: raw above, low-passed to 10 A below."""
    n, box = len(images), images.shape[-1]
    figure = new_figure(1.3 * n, 2.8)
    smooth_ft = to_fourier(torch.from_numpy(images)) * lowpass((box, box), pixel_size, max(10.0, 4 * pixel_size))
    smooth = to_real(smooth_ft, (box, box)).numpy()
    panels = figure.subplots(2, n, squeeze=False)
    for row, pictures in enumerate((images, smooth)):
        for axes, image in zip(panels[row], pictures, strict=True):
            low, high = np.percentile(image, [0.5, 99.5])
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower")
            axes.set_axis_off()
    scale_bar(panels[1][0], box, pixel_size)
    return Figure.from_matplotlib(figure, "gallery", "Simulated particles", caption)
