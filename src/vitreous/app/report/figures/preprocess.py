"""A session's movies in the order of acquisition, how quickly they were done, and the newest of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import ndimage

from vitreous.app.report.drawing import COLOURS, INK, new_figure, show_slice
from vitreous.app.report.figure import Figure
from vitreous.app.report.figures.select_micrographs import draw_in_order
from vitreous.data.table import Table
from vitreous.io.coordinates import read_coordinates
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_table

_SHOWN_WIDTH = 768  # px of a micrograph in the report
_STEPS = ("reading", "motion", "CTF", "picking", "extraction")


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """The session, the pace, the newest micrograph."""
    table = read_table(job_directory / "stream.star", "movies")
    found = [_newest(table, project), _session(table), _pace(table)]
    return [one for one in found if one is not None]


def _session(table: Table) -> Figure:
    """One panel a quantity over the movies' order."""
    defocus = 0.5e-4 * (table["defocus_u"] + table["defocus_v"])
    picks = np.where(table["vitreousPicks"] < 0, np.nan, table["vitreousPicks"].astype(np.float64))
    panels = {
        "motion (Å)": table["motion_total"],
        "early motion (Å)": table["motion_early"],
        "defocus (µm)": defocus,
        "CTF fits to (Å)": table["ctf_resolution"],
        "ice ring": table["ice_ring"],
        "picks": picks,
    }
    panels = {name: values.astype(np.float64) for name, values in panels.items() if np.isfinite(values).any()}
    good = table["vitreousLeftOut"] == 0
    figure = new_figure(10.0, 1.55 * max(1, len(panels)) + 0.6)
    axes = figure.subplots(max(1, len(panels)), 2, squeeze=False, width_ratios=[5, 1], sharey="row")
    for (left, right), (name, values) in zip(axes, panels.items(), strict=False):
        draw_in_order(left, right, values, good)
        left.set_ylabel(name, fontsize=9)
    axes[-1][0].set_xlabel("movie, in the order in which they came")
    caption = f"{int(good.sum())} movies"
    caption += f", {int((~good).sum())} left out (red, where something is known of them)" if not good.all() else ""
    caption += ". A step or a slope is the microscope: drift of alignment, ice that grows, a grid square that was bad."
    return Figure.from_matplotlib(figure, "session", "Movies in order", caption)


def _pace(table: Table) -> Figure | None:
    """Movies done over time and an hour's worth, and the seconds of each step."""
    seconds = {step: table[f"vitreousSeconds{step.capitalize()}"].astype(np.float64) for step in _STEPS}
    new = seconds["motion"] > 0  # not what an earlier run had done
    if not new.any():
        return None
    figure = new_figure(10.0, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    finished = np.sort(table["vitreousFinished"][new].astype(np.float64))
    first = float(sum(seconds[step][new][np.argmin(table["vitreousFinished"][new])] for step in _STEPS))
    minutes = (finished - finished[0] + first) / 60.0
    left.step([0.0, *minutes], range(len(minutes) + 1), where="post", color=COLOURS[0], linewidth=1.6)
    left.set_xlabel("minutes since the first was begun")
    left.set_ylabel("movies done")
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_xlim(left=0)
    left.set_ylim(bottom=0)
    rate = len(minutes) / minutes[-1] * 60.0 if minutes[-1] > 0 else 0.0
    left.set_title(f"{rate:.0f} movies an hour", fontsize=10, loc="left")
    shown = [step for step in _STEPS if seconds[step][new].any()]
    means = [float(seconds[step][new].mean()) for step in shown]
    right.barh(shown[::-1], means[::-1], color=COLOURS[0])
    right.set_xlabel("seconds a movie (mean)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    caption = "Movies done over time: a flat stretch is a microscope that rests, a straight line work that keeps up. "
    caption += "Right: how long a movie spends in each step; the reading of one goes on while others are computed."
    return Figure.from_matplotlib(figure, "pace", "Pace", caption)


def _newest(table: Table, project: Path) -> Figure | None:
    """The micrograph that was done last, with its picks and its CTF fit."""
    good = np.flatnonzero(table["vitreousLeftOut"] == 0)
    if not len(good):
        return None
    index = int(good[np.argmax(table["vitreousFinished"][good])])
    path = project / str(table["micrograph_name"][index])
    image, pixel_size = read_image(path)
    fit = path.with_name(f"{path.stem}_ctf.mrc")
    figure = new_figure(10.0, 5.2)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1])
    step = max(1, image.shape[1] // _SHOWN_WIDTH)
    smooth = ndimage.gaussian_filter(image, max(0.6 * step, 8.0 / pixel_size))[::step, ::step]
    show_slice(left, smooth, path.name, pixel_size * step)
    picks = path.with_name(f"{path.stem}_autopick.star")
    count = _draw_picks(left, picks, step) if picks.is_file() else 0
    words = f"{0.5e-4 * (table['defocus_u'][index] + table['defocus_v'][index]):.2f} µm, "
    words += f"fits to {table['ctf_resolution'][index]:.1f} Å"
    if fit.is_file():
        _draw_fit(right, *read_image(fit), float(table["ctf_resolution"][index]), words)
    else:
        right.set_axis_off()
    caption = f"The last one done: {path.name}" + (f", {count} picks" if picks.is_file() else "") + f"; {words}. "
    caption += "Right: its power spectrum, left half measured, right half the fit; rings must go on across the middle."
    return Figure.from_matplotlib(figure, "newest", "Newest micrograph", caption)


def _draw_picks(axes: Axes, path: Path, step: int) -> int:
    table = read_coordinates(path)
    axes.plot(
        table["coordinate_x"] / step, table["coordinate_y"] / step, "o", markersize=16, markerfacecolor="none",
        markeredgecolor=COLOURS[3], markeredgewidth=1.0,
    )  # fmt: skip
    return table.n_rows


def _draw_fit(axes: Axes, picture: NDArray[np.float32], pixel_size: float, resolution: float, title: str) -> None:
    """As far as the fit goes, and a little further: beyond there is only noise to look at."""
    nyquist = 0.5 / pixel_size
    axes.imshow(picture, cmap="gray", vmin=-0.1, vmax=1.1, origin="lower", extent=(-nyquist, nyquist) * 2)
    reach = min(nyquist, 1.25 / resolution)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_title(title, fontsize=9, color=INK)
    axes.set_axis_off()
