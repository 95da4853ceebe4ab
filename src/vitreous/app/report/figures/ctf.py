"""Pictures of a CTF job: Thon rings beside their fit, equiphase curves, defocus over the micrographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from vitreous.app.report.drawing import COLOURS, INK, new_figure, resolution_axis
from vitreous.app.report.figure import Figure
from vitreous.data.table import Table
from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset, read_tables

_DATA, _FIT, _QUIET = COLOURS[:3]
_SHADE = {"facecolor": "black", "alpha": 0.5, "linewidth": 0}


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Rings and curves of the worst, median and best micrograph, and the spread over all of them."""
    rows = read_dataset(job_directory / "micrographs_ctf.star").rows
    order = np.argsort(-rows["ctf_resolution"], kind="stable")
    chosen = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    if len(order) < 3:
        chosen = {"best": order[-1]}
    return [
        _rings(rows, chosen, project),
        _curves(rows, chosen, project),
        _spread(rows),
    ]


def _image_path(rows: Table, index: int, project: Path) -> Path:
    return project / str(rows["ctf_image"][index]).removesuffix(":mrc")


def _label(rows: Table, name: str, index: int) -> str:
    defocus = 0.5e-4 * (rows["defocus_u"][index] + rows["defocus_v"][index])
    stem = Path(str(rows["micrograph_name"][index])).stem
    return f"{name}: {stem}\n{defocus:.2f} µm, fits to {rows['ctf_resolution'][index]:.1f} Å"


def _rings(rows: Table, chosen: dict[str, int], project: Path) -> Figure:
    figure = new_figure(4.2 * len(chosen), 4.7)
    for number, (name, index) in enumerate(chosen.items(), 1):
        axes = figure.add_subplot(1, len(chosen), number)
        image, pixel_size = read_image(_image_path(rows, index, project))
        nyquist = 0.5 / pixel_size
        extent = (-nyquist, nyquist, -nyquist, nyquist)
        axes.imshow(image, cmap="gray", vmin=-0.1, vmax=1.1, origin="lower", extent=extent)
        # Beyond the fit there is only noise to look at; the eye wants the rings.
        reach = min(nyquist, 1.25 / float(rows["ctf_resolution"][index]))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="1/Å")
        axes.text(0.03, 0.96, "measured", transform=axes.transAxes, color="white", va="top", fontsize=9, bbox=_SHADE)
        axes.text(
            0.97, 0.96, "fit", transform=axes.transAxes, color="white", va="top", ha="right", fontsize=9, bbox=_SHADE
        )
        _draw_axis(axes, float(rows["defocus_angle"][index]), reach)
        axes.set_title(_label(rows, name, index), fontsize=9)
    caption = (
        "Power spectra without their background, left half measured, right half the fitted CTF². Rings must go on "
        "across the middle without a step. The tick on the rim marks the direction of defocus U."
    )
    return Figure.from_matplotlib(figure, "ctf_rings", "Thon rings and their fit", caption)


def _draw_axis(axes: Axes, angle: float, reach: float) -> None:
    direction = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    for sign in (-1, 1):
        ends = sign * np.outer([0.9 * reach, 0.99 * reach], direction)
        axes.plot(ends[:, 0], ends[:, 1], color=_FIT, linewidth=2.5)


def _curves(rows: Table, chosen: dict[str, int], project: Path) -> Figure:
    figure = new_figure(9.5, 2.5 * len(chosen))
    for number, (name, index) in enumerate(chosen.items(), 1):
        axes = figure.add_subplot(len(chosen), 1, number)
        curve = read_tables(_image_path(rows, index, project).with_suffix(".star"))["equiphase"]
        resolution = float(rows["ctf_resolution"][index])
        inside = curve["frequency"] <= 1.35 / resolution
        k = curve["frequency"][inside]
        scale = float(np.abs(curve["model"]).max()) or 1.0
        axes.plot(k, curve["data"][inside] / scale, color=_DATA, linewidth=1.2, label="spectrum, equiphase average")
        axes.plot(k, curve["model"][inside] / scale, color=_FIT, linewidth=0.9, label="fit")
        axes.plot(k, curve["local_correlation"][inside], color=_QUIET, linewidth=0.9, label="local correlation")
        axes.axvline(1.0 / resolution, color=INK, linewidth=0.8, linestyle="--")
        axes.axhline(0.5, color=_QUIET, linewidth=0.5, linestyle=":")
        axes.set_ylim(-2.2, 2.2)
        axes.set_title(_label(rows, name, index).replace("\n", ", "), fontsize=9)
        resolution_axis(axes, 1.0 / float(k[-1]))
        if number == 1:
            axes.legend(loc="upper right", fontsize=8, ncols=3, frameon=False)
    caption = (
        "One-dimensional Thon rings, averaged along lines of equal CTF phase so that astigmatism does not blur them, "
        "and the fit. The dashed line is where the local correlation falls below 0.5: the resolution of the fit."
    )
    return Figure.from_matplotlib(figure, "ctf_curves", "Equiphase averages", caption)


def _spread(rows: Table) -> Figure:
    figure = new_figure(9.5, 3.4)
    defocus = 0.5e-4 * (rows["defocus_u"] + rows["defocus_v"])
    resolution = rows["ctf_resolution"]
    first = figure.add_subplot(1, 2, 1)
    first.scatter(defocus, resolution, s=14, color=_DATA, alpha=0.8, linewidths=0)
    first.set(xlabel="defocus (µm)", ylabel="resolution of the fit (Å)")
    first.invert_yaxis()
    second = figure.add_subplot(1, 2, 2)
    # An axis is the same at angle + 180: doubled, it becomes a point on the plane.
    axis = np.deg2rad(2.0 * rows["defocus_angle"])
    second.scatter(
        rows["astigmatism"] * np.cos(axis),
        rows["astigmatism"] * np.sin(axis),
        s=14,
        color=_DATA,
        alpha=0.8,
        linewidths=0,
    )
    limit = 1.15 * max(float(rows["astigmatism"].max()), 100.0)
    second.axhline(0, color=_QUIET, linewidth=0.5)
    second.axvline(0, color=_QUIET, linewidth=0.5)
    second.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    second.set(xlabel="astigmatism · cos 2·angle (Å)", ylabel="astigmatism · sin 2·angle (Å)")
    for axes in (first, second):
        axes.spines[["top", "right"]].set_visible(False)
    caption = (
        "Left: how far each micrograph's fit goes, against its defocus; those far below the others are thick ice, "
        "drift or carbon. Right: astigmatism as a vector; one tight cloud is one microscope alignment."
    )
    return Figure.from_matplotlib(figure, "ctf_spread", "Defocus, resolution, astigmatism", caption)
