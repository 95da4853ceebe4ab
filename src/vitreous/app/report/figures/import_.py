"""What was imported: the first movies' mean frames, micrographs, or some particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from vitreous.app.report.drawing import new_figure, scale_bar, show_slice
from vitreous.app.report.figure import Figure
from vitreous.data.dataset import Dataset
from vitreous.io.movies import open_movie
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset
from vitreous.io.stacks import open_stacks

_SHOWN = 3  # movies or micrographs
_FRAMES = 8  # enough to see carbon, ice and the beam's edge
_WIDTH = 512  # pixels of a thumbnail, about
_GALLERY = (4, 10)  # rows, columns of particles
_GALLERY_RESOLUTION = 20.0  # A: single particles are noise beyond


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """One figure of what the job listed."""
    for kind, draw in (("movies", _movies), ("micrographs", _micrographs), ("particles", _particles)):
        path = job_directory / f"{kind}.star"
        if path.is_file():
            return [draw(read_dataset(path), project)]
    return []


def _spread(names: list[str]) -> list[str]:
    """A few names from the first to the last."""
    picked = np.linspace(0, len(names) - 1, min(_SHOWN, len(names))).round().astype(int)
    return [names[index] for index in picked]


def _movies(dataset: Dataset, project: Path) -> Figure:
    names = dataset.rows["movie_name"].tolist()
    chosen = _spread(names)
    pixel_size = float(dataset.optics["movie_pixel_size"][0]) if "movie_pixel_size" in dataset.optics else 1.0
    images = []
    counts = []
    for name in chosen:
        movie = open_movie(project / name)
        mean = movie.frames(0, min(_FRAMES, movie.n_frames)).mean(0)
        images.append((Path(name).name, mean))
        counts.append(float(mean.mean()))
    caption = f"Mean of the first frames of {len(chosen)} of {len(names)} movies, not gain-corrected: "
    caption += f"{min(counts):.3g} to {max(counts):.3g} counts a pixel and frame"
    caption += f" ({min(counts) / pixel_size**2:.3g} to {max(counts) / pixel_size**2:.3g} per A^2; if a count is an "
    caption += "electron, this is the dose a frame). An empty or half-dark picture is a closed valve or a grid bar."
    return _gallery(images, pixel_size, "movies", "Imported movies", caption)


def _micrographs(dataset: Dataset, project: Path) -> Figure:
    names = dataset.rows["micrograph_name"].tolist()
    chosen = _spread(names)
    images = [(Path(name).name, _micrograph(project / name)) for name in chosen]
    pixel_size = float(dataset.optics["micrograph_pixel_size"][0]) if "micrograph_pixel_size" in dataset.optics else 1.0
    caption = f"{len(chosen)} of {len(names)} micrographs. Particles should be visible in thin, even ice."
    return _gallery(images, pixel_size, "micrographs", "Imported micrographs", caption)


def _micrograph(path: Path) -> Float[np.ndarray, "y x"]:
    if path.suffix.lower() in (".tif", ".tiff"):
        return open_movie(path).frames(0, 1)[0]
    return read_image(path)[0]


def _gallery(
    images: list[tuple[str, Float[np.ndarray, "y x"]]], pixel_size: float, name: str, title: str, caption: str
) -> Figure:
    figure = new_figure(3.7 * len(images), 4.0)
    for axes, (file, image) in zip(np.atleast_1d(figure.subplots(1, len(images))), images, strict=True):
        factor = max(1, image.shape[1] // _WIDTH)
        show_slice(axes, _bin(image, factor), file[:44], pixel_size * factor)
    return Figure.from_matplotlib(figure, name, title, caption)


def _bin(image: Float[np.ndarray, "y x"], factor: int) -> Float[np.ndarray, "y2 x2"]:
    """Mean over factor x factor pixels."""
    ny, nx = image.shape[0] // factor, image.shape[1] // factor
    return image[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor).mean((1, 3))


def _particles(dataset: Dataset, project: Path) -> Figure:
    stack = max((stack for _, stack in open_stacks(dataset, project)), key=len)  # groups may differ in box
    rows, columns = _GALLERY
    shown = np.linspace(0, len(stack) - 1, min(rows * columns, len(stack))).astype(np.int64)
    images = _low_pass(stack[shown].numpy(), stack.pixel_size)
    tiles = np.zeros((rows * columns, stack.box, stack.box), dtype=np.float32)
    for tile, image in zip(tiles, images, strict=False):
        tile[:] = (image - image.mean()) / max(float(image.std()), 1e-12)
    # Top left is the first: rows are drawn from below.
    mosaic = tiles.reshape(rows, columns, stack.box, stack.box)[::-1].transpose(0, 2, 1, 3)
    figure = new_figure(columns * 1.1, rows * 1.1)
    axes = figure.subplots()
    axes.imshow(mosaic.reshape(rows * stack.box, columns * stack.box), cmap="gray", origin="lower", vmin=-3, vmax=3)
    axes.set_axis_off()
    scale_bar(axes, stack.box, stack.pixel_size)
    caption = f"{len(shown)} of {len(stack)} particles, box {stack.box}, {stack.pixel_size:.3g} A/px, low-passed to "
    caption += f"{_GALLERY_RESOLUTION:.0f} A. Protein is white if they were inverted at extraction, as RELION needs it."
    return Figure.from_matplotlib(figure, "particles", "Imported particles", caption)


def _low_pass(images: Float[np.ndarray, "n y x"], pixel_size: float) -> Float[np.ndarray, "n y x"]:
    """Gaussian that falls to 1/e^2 at the gallery's resolution."""
    box = images.shape[-1]
    ky, kx = np.fft.fftfreq(box)[:, None], np.fft.rfftfreq(box)[None]
    frequency2 = (ky**2 + kx**2) / pixel_size**2
    weight = np.exp(-2.0 * frequency2 * _GALLERY_RESOLUTION**2)
    return np.fft.irfft2(np.fft.rfft2(images) * weight, s=(box, box)).astype(np.float32)
