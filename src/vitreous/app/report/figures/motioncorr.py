"""Motion tracks on the field, as microscopists know them, accumulated motion of all movies, and a micrograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import ndimage

from vitreous.app.report.drawing import COLOURS, INK, new_figure, show_slice
from vitreous.app.report.figure import Figure
from vitreous.data.motion import field_displacement, grid_points
from vitreous.data.table import Table
from vitreous.io.motion import MotionRecord, read_motion
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_table

_MOST_FIELDS = 6
_SHOWN_WIDTH = 512  # px of a micrograph in the report


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Three pictures: tracks, motion of all movies, one corrected micrograph beside its power spectrum."""
    table = read_table(job_directory / "corrected_micrographs.star", "micrographs")
    return [_tracks(table, project), _accumulated(table, project), _micrograph(table, project)]


def _tracks(table: Table, project: Path) -> Figure:
    shown = np.unique(np.linspace(0, table.n_rows - 1, min(_MOST_FIELDS, table.n_rows)).round().astype(int))
    columns = 2 if len(shown) in (2, 4) else min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(3.6 * columns + 0.6, 3.7 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    lines: LineCollection | None = None
    for index, ax in zip(shown, axes, strict=False):
        record = read_motion(project / table["micrograph_metadata"][index])
        lines = _draw_field(ax, record, Path(str(table["micrograph_name"][index])).stem)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    if lines is not None:
        bar = figure.colorbar(lines, ax=list(axes), shrink=0.4, aspect=15, ticks=[0, 1])
        bar.ax.set_yticklabels(["first frame", "last"], fontsize=8)
    caption = (
        "How the specimen moved: the thick line is the field as a whole, drawn about its middle; the thin ones are "
        "the local motion beside it, each at its place (dot: first frame), over what was measured in each patch "
        "(grey). Enlarged as stated. Tracks should be smooth and turn gradually over the field; the first frames "
        "move most. A track that jumps about is noise."
    )
    return Figure.from_matplotlib(figure, "tracks", "Motion over the field", caption)


def _draw_field(ax: Axes, record: MotionRecord, name: str) -> LineCollection:
    """The whole field's track about its middle, and the local motion beside it at the patches, each enlarged."""
    motion = record.motion
    ny, nx = motion.shape
    phase = np.linspace(0, 1, motion.n_frames)
    whole = -motion.global_shifts
    enlarge = _enlargement(whole, 0.4 * min(nx, ny))
    title = f"{name}\nwhole field {enlarge:g}x"
    if motion.coefficients is None:
        title += ", no local motion found"
    else:
        points = motion.patch_centres if len(motion.patch_centres) else grid_points(motion.shape, 5)
        local = field_displacement(motion, points) - whole[:, None]
        cell = min(nx, ny) / max(2.0, np.sqrt(len(points)))
        enlarge_local = _enlargement(local, 0.8 * cell)
        title += f", local {enlarge_local:g}x"
        for point, measured in zip(motion.patch_centres, -motion.patch_shifts, strict=True):
            ax.plot(*(point + enlarge_local * measured).T, color=COLOURS[2], linewidth=0.5, alpha=0.6)
        for point, track in zip(points, local.transpose(1, 0, 2), strict=True):
            _line(ax, point + enlarge_local * track, phase, 1.6)
            ax.plot(*point, ".", color=INK, markersize=3)
    middle = np.array([nx / 2, ny / 2]) - 0.5 * enlarge * (whole.max(0) + whole.min(0))
    lines = _line(ax, middle + enlarge * whole, phase, 3.5)
    ax.set_xlim(0, nx)
    ax.set_ylim(0, ny)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=8, color=INK)
    _scale(ax, enlarge, record.pixel_size, motion.shape)
    return lines


def _enlargement(tracks: NDArray[np.float64], room: float) -> float:
    """A round factor that makes the longest track fill the room: people read the scale off the picture."""
    return _round_down(room / max(float(np.ptp(tracks, axis=0).max()), 0.2))


def _scale(ax: Axes, enlarge: float, pixel_size: float, shape: tuple[int, int]) -> None:
    """A bar of so many A of motion of the whole field."""
    wanted = 0.2 * shape[1] / enlarge * pixel_size
    length = _round_down(wanted)
    x0, y0 = 0.04 * shape[1], 0.04 * shape[0]
    ax.plot([x0, x0 + length / pixel_size * enlarge], [y0, y0], color=INK, linewidth=2, solid_capstyle="butt")
    ax.text(
        x0,
        y0 + 0.015 * shape[0],
        f"{length:g} Å (whole field)",
        fontsize=7,
        color=INK,
        va="bottom",
        backgroundcolor="#ffffffc0",
    )


def _round_down(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not more."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(m for m in (1, 2, 5) if m * power <= value * (1 + 1e-9)))


def _line(ax: Axes, track: NDArray[np.float64], phase: NDArray[np.float64], width: float) -> LineCollection:
    """A track that changes colour with time."""
    segments = np.stack([track[:-1], track[1:]], axis=1)
    lines = LineCollection(list(segments), cmap="viridis", linewidths=width, capstyle="round")
    lines.set_array(phase[1:])
    lines.set_clim(0, 1)
    ax.add_collection(lines)
    return lines


def _accumulated(table: Table, project: Path) -> Figure:
    figure = new_figure(9, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    numbers = np.arange(1, table.n_rows + 1)
    width = 0.8 if table.n_rows < 200 else 1.0
    left.bar(numbers, table["motion_early"], width, color=COLOURS[1], label="early (first 4 e/Å²)")
    left.bar(numbers, table["motion_late"], width, bottom=table["motion_early"], color=COLOURS[0], label="late")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_xlabel("micrograph")
    left.set_ylabel("length of the track (Å)")
    left.set_xlim(0.4, table.n_rows + 0.6)
    left.legend(frameon=False, fontsize=8)
    for name in table["micrograph_metadata"][:300]:
        record = read_motion(project / name)
        steps = np.hypot(*np.diff(record.motion.global_shifts, axis=0).T) * record.pixel_size
        right.plot(np.arange(2, len(steps) + 2), steps, color=COLOURS[2], linewidth=0.6, alpha=0.6)
    right.set_xlabel("frame")
    right.set_ylabel("moved since the last (Å)")
    right.set_ylim(bottom=0)
    median = float(np.median(table["motion_total"]))
    caption = f"Motion of the whole field in each of {table.n_rows} movies, {median:.1f} Å in the median. Movies that "
    caption += "stand out drifted or lie on broken support. Right: motion falls off after the first frames."
    return Figure.from_matplotlib(figure, "accumulated", "Accumulated motion", caption)


def _micrograph(table: Table, project: Path) -> Figure:
    """The micrograph of median motion, low-passed as one would look at it, and its power spectrum."""
    index = int(np.argsort(table["motion_total"])[table.n_rows // 2])
    image, pixel_size = read_image(project / str(table["micrograph_name"][index]))
    has_spectrum = "power_spectrum_name" in table
    figure = new_figure(9 if has_spectrum else 4.6, 4.5)
    axes = figure.subplots(1, 2 if has_spectrum else 1, squeeze=False)[0]
    step = max(1, image.shape[1] // _SHOWN_WIDTH)
    smooth = ndimage.gaussian_filter(image, max(0.6 * step, 8.0 / pixel_size))[::step, ::step]
    show_slice(axes[0], smooth, Path(str(table["micrograph_name"][index])).name, pixel_size * step)
    if has_spectrum:
        _draw_spectrum(axes[1], *read_image(project / str(table["power_spectrum_name"][index])))
    caption = "The corrected micrograph of median motion, and the power spectrum of its frames: Thon rings should be "
    caption += "there in every direction; rings that are missing in one direction mean motion along it that is left."
    return Figure.from_matplotlib(figure, "micrograph", "A corrected micrograph", caption)


def _draw_spectrum(ax: Axes, spectrum: NDArray[np.float32], pixel_size: float) -> None:
    """The spectrum over its own radial trend, so that rings show at all radii."""
    box = spectrum.shape[0]
    y, x = np.indices(spectrum.shape) - box // 2
    radius = np.rint(np.hypot(x, y)).astype(int)
    counts = np.maximum(np.bincount(radius.ravel()), 1)
    trend = np.bincount(radius.ravel(), spectrum.ravel()) / counts
    smooth = ndimage.gaussian_filter1d(trend[2:], 0.03 * box, mode="nearest")
    flat = spectrum / np.concatenate([smooth[:1], smooth[:1], smooth])[radius]
    flat = ndimage.gaussian_filter(flat, 1.0)
    ring = flat[(radius > 0.05 * box) & (radius < 0.45 * box)]
    low, high = np.percentile(ring, [2, 98])
    ax.imshow(flat, cmap="gray", vmin=low, vmax=high, origin="lower")
    ax.set_title(f"power spectrum to {2 * pixel_size:.2g} Å", fontsize=9, color=INK)
    ax.set_axis_off()
