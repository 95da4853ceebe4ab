"""Picks on micrographs, and the scores they were chosen by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.ticker import MaxNLocator

from vitreous.app.report.drawing import COLOURS, INK, new_figure, show_slice
from vitreous.app.report.figure import Figure
from vitreous.app.report.record import job_parameters
from vitreous.core.fourier import lowpass, rescale, to_fourier, to_real
from vitreous.data.table import Table
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset, read_table

_MOST_MICROGRAPHS = 6
_MOST_SCORED = 200  # micrographs whose candidates are read again: more would not change the histogram
_SIDE = 640  # pixels of a micrograph as drawn
_LOWPASS = 30.0  # A
_FILTERED = "response over its spread"


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Up to six micrographs with picks and candidates' scores of all."""
    parameters = job_parameters(job_directory)
    listing = read_table(job_directory / "autopick.star", "coordinate_files")
    summary = read_table(job_directory / "picking_summary.star", "micrographs")
    return [
        _micrographs(listing, summary, parameters, project),
        _scores(listing, summary, project, "log-odds of a particle" if parameters.get("model") else _FILTERED),
    ]


def _micrographs(listing: Table, summary: Table, parameters: dict[str, object], project: Path) -> Figure:
    dataset = read_dataset(project / str(parameters["input"]))
    pixel_sizes = dict(
        zip(dataset.rows["micrograph_name"], dataset.optics_of_rows("micrograph_pixel_size"), strict=True)
        if "micrograph_pixel_size" in dataset.optics
        else ()
    )
    count = min(_MOST_MICROGRAPHS, listing.n_rows)
    chosen = np.unique(np.linspace(0, listing.n_rows - 1, count).round().astype(int))
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = new_figure(4.2 * columns, 4.3 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    diameter = _diameter(parameters, str(listing["coordinate_file"][0]), project)
    for axes, index in zip(panels, chosen, strict=False):
        name = str(listing["micrograph_name"][index])
        image, header_pixel = read_image(project / name)
        pixel_size = float(pixel_sizes.get(name, header_pixel))
        picks = read_table(project / str(listing["coordinate_file"][index]))
        title = f"{Path(name).stem}: {picks.n_rows} picks"
        if summary["contaminated"][index] > 0.005:
            title += f", {100 * summary['contaminated'][index]:.0f}% left out"
        _draw(axes, image, pixel_size, picks, diameter, title)
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    caption = "Low-passed micrographs with the picks, circles of the particle diameter. Each circle should hold one "
    caption += "particle in its middle; particles without a circle were missed, circles on plain ice are false."
    return Figure.from_matplotlib(figure, "picks", "Picks", caption)


def _diameter(parameters: dict[str, object], coordinate_file: str, project: Path) -> float:
    """What was asked for; where a trained picker knew it, what its candidates say."""
    given = [float(str(parameters[name])) for name in ("diameter_min", "diameter_max")]
    if min(given) > 0.0:
        return 0.5 * sum(given)
    stem = coordinate_file.removesuffix("_autopick.star")
    return float(np.median(read_table(project / f"{stem}_candidates.star", "candidates")["pick_diameter"]))


def _draw(axes: Axes, image: np.ndarray, pixel_size: float, picks: Table, diameter: float, title: str) -> None:
    small, factor = _reduce(image, pixel_size)
    show_slice(axes, small, title, pixel_size * factor)
    places = np.stack([picks["coordinate_x"], picks["coordinate_y"]], axis=1) / factor
    size = np.full(len(places), diameter / (pixel_size * factor))
    circles = EllipseCollection(
        size, size, np.zeros(len(places)), units="xy", offsets=places, transOffset=axes.transData,
        facecolors="none", edgecolors="#7ddf64", linewidths=0.9,
    )  # fmt: skip
    axes.add_collection(circles)


def _reduce(image: np.ndarray, pixel_size: float) -> tuple[np.ndarray, float]:
    """The micrograph low-passed at about _SIDE pixels, and by how much a pixel grew."""
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    factor = max(1.0, max(image.shape) / _SIDE)
    shape = (2 * round(image.shape[0] / factor / 2), 2 * round(image.shape[1] / factor / 2))
    small = rescale(tensor, shape)
    grown = image.shape[0] / shape[0]
    # A low-pass coarser than Nyquist only: a strongly reduced picture is smooth already.
    resolution = max(_LOWPASS, 2.0 * pixel_size * grown)
    smooth = to_real(to_fourier(small) * lowpass(shape, pixel_size * grown, resolution).float(), shape)
    return smooth.numpy(), float(grown)


def _scores(listing: Table, summary: Table, project: Path, what: str) -> Figure:
    scores = []
    chosen = np.unique(np.linspace(0, listing.n_rows - 1, min(_MOST_SCORED, listing.n_rows)).round().astype(int))
    for file in listing["coordinate_file"][chosen]:
        stem = str(file).removesuffix("_autopick.star")
        path = project / f"{stem}_candidates.star"
        scores.append(read_table(path, "candidates")["pick_score"] if path.is_file() else np.zeros(0))
    counts = summary["n_picks"]
    figure = new_figure(11, 3.4)
    left, right = figure.subplots(1, 2)
    together = np.concatenate(scores)
    if len(together):
        # Log-odds go below zero, responses do not.
        lowest, highest = np.quantile(together, [0.001, 0.999])
        left.hist(together, bins=np.linspace(min(0.0, lowest), max(highest, 1e-6) * 1.05, 80), color=COLOURS[0])
    lows, highs = np.quantile(summary["threshold"], [0.0, 1.0])
    left.axvspan(lows, max(highs, lows + 1e-3), color=COLOURS[1], alpha=0.35, linewidth=0)
    left.axvline(float(np.median(summary["threshold"])), color=COLOURS[1], linewidth=1.5)
    left.set_xlabel(f"score ({what})")
    left.set_ylabel("candidates")
    right.plot(np.arange(1, len(counts) + 1), counts, ".", color=COLOURS[0], markersize=4)
    right.axhline(float(np.median(counts)), color=INK, linewidth=0.8, linestyle="--")
    right.set_xlabel("micrograph")
    right.set_ylabel("picks")
    right.set_ylim(0, 1.15 * max(1, int(counts.max())))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    whose = (
        "all candidates" if len(chosen) == listing.n_rows else f"candidates in {len(chosen)} evenly spaced micrographs"
    )
    caption = f"Left: scores of {whose}; noise is the hump on the left, particles the one on the right; red: "
    caption += "the thresholds (band: over all micrographs). One hump alone means that nothing was told from noise. "
    caption += "Right: picks per micrograph; those far from the rest deserve a look."
    return Figure.from_matplotlib(figure, "scores", "Pick scores", caption)
