"""Pictures of template matching: micrographs with their hits, z-score maps, what the scores are like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from scipy import ndimage, special

from vitreous.app.report.drawing import COLOURS, INK, new_figure, scale_bar
from vitreous.app.report.figure import Figure
from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_table

_MOST_MICROGRAPHS = 3
_SIDE = 640  # pixels of a map as drawn
_DATA, _MARK, _QUIET = COLOURS[:3]


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Up to three micrographs (fewest, median, most hits): image, z-score, histogram."""
    summary = read_table(job_directory / "matching_summary.star", "micrographs")
    listing = read_table(job_directory / "matches.star", "coordinate_files")
    order = np.argsort(summary["n_hits"], kind="stable")
    chosen = np.unique(order[np.linspace(0, len(order) - 1, min(_MOST_MICROGRAPHS, len(order))).round().astype(int)])
    return [_panels(summary, listing, chosen, project)]


def _panels(summary: Table, listing: Table, chosen: np.ndarray, project: Path) -> Figure:
    figure = new_figure(12.6, 4.3 * len(chosen))
    panels = figure.subplots(len(chosen), 3, squeeze=False)
    for row, index in zip(panels, chosen, strict=True):
        name = str(summary["micrograph_name"][index])
        picks = read_table(project / str(listing["coordinate_file"][index]))
        pixel_size, box = float(summary["pixel_size"][index]), int(summary["template_box"][index])
        try:
            image, _ = read_image(project / name)
        except InputError:
            image = np.zeros((2, 2), np.float32)
        score, _ = read_image(project / str(summary["scaled_mip_file"][index]))
        threshold = float(summary["threshold"][index])
        _micrograph(row[0], image, picks, pixel_size, box, f"{Path(name).stem}: {picks.n_rows} hits")
        _score_map(row[1], score, threshold, box)
        _histogram(row[2], score, threshold, float(summary["n_correlations"][index]))
    caption = (
        "Left: the micrograph with its hits (circles as wide as half the template's box). Middle: the z-score of the "
        "best orientation at each position; a molecule is a sharp bright point. Right: z-scores of all positions, and "
        "those that the highest of so many normal deviates would have; hits stand beyond the dashed threshold."
    )
    return Figure.from_matplotlib(figure, "matching", "Template matching", caption)


def binned(image: Float[np.ndarray, "y x"], *, highest: bool = False) -> tuple[Float[np.ndarray, "b a"], int]:
    """An image reduced to be drawn, by means or by maxima of blocks, and the block's side."""
    side = max(1, -(-max(image.shape) // _SIDE))
    rows, columns = image.shape[0] // side * side, image.shape[1] // side * side
    blocks = image[:rows, :columns].reshape(rows // side, side, columns // side, side)
    return (blocks.max((1, 3)) if highest else blocks.mean((1, 3))), side


def _micrograph(
    axes: Axes, image: Float[np.ndarray, "y x"], picks: Table, pixel_size: float, box: int, title: str
) -> None:
    small, side = binned(image)
    small = ndimage.gaussian_filter(small, 1.0)  # or noise hides the molecules
    low, high = np.percentile(small, [0.5, 99.5])
    axes.imshow(small, cmap="gray", vmin=low, vmax=high, origin="lower")
    radius = 0.25 * box / side
    for x, y in zip(picks["coordinate_x"] / side, picks["coordinate_y"] / side, strict=True):
        angle = np.linspace(0, 2 * np.pi, 40)
        axes.plot(x + radius * np.cos(angle), y + radius * np.sin(angle), color=_MARK, linewidth=1.2)
    axes.set(xlim=(0, small.shape[1]), ylim=(0, small.shape[0]), xticks=[], yticks=[])
    scale_bar(axes, small.shape[1], pixel_size * side)
    axes.set_title(title, fontsize=9)


def _score_map(axes: Axes, score: Float[np.ndarray, "y x"], threshold: float, box: int) -> None:
    small = ndimage.maximum_filter(binned(score, highest=True)[0], 5)  # a molecule is one pixel: too little to see
    drawn = axes.imshow(small, cmap="magma", vmin=float(np.median(small)), vmax=max(threshold, float(small.max())),
                        origin="lower")  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"z-score, highest {score.max():.1f} (half a box, {box // 2} px, narrower all round)", fontsize=9)
    axes.figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03)


def _histogram(axes: Axes, score: Float[np.ndarray, "y x"], threshold: float, n_correlations: float) -> None:
    values = score.ravel()
    edges = np.linspace(float(np.percentile(values, 0.01)), max(float(values.max()), threshold) + 0.3, 120)
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, color=_DATA, fill=True, alpha=0.6, label="measured")
    # The highest of n independent normal deviates: P(z < t) = Phi(t)^n. Orientations are correlated, so that fewer
    # than n are independent: n is fitted to the median.
    independent = np.log(0.5) / special.log_ndtr(float(np.median(values)))
    law = np.exp(min(independent, n_correlations) * special.log_ndtr(edges))
    axes.plot(
        0.5 * (edges[1:] + edges[:-1]), len(values) * np.diff(law), color=INK, linewidth=1.0, label="chance alone"
    )
    axes.axvline(threshold, color=_MARK, linestyle="--", linewidth=1.0)
    axes.set(yscale="log", ylim=(0.5, None), xlabel="z-score", ylabel="positions")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
