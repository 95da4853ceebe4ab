"""FSC curves, Guinier plot and slices of a post-processed map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.app.report.drawing import COLOURS, INK, central_slices, new_figure, plot_fsc, show_slice
from vitreous.app.report.figure import Figure
from vitreous.io.mrc import read_map
from vitreous.io.relion import read_table


def figures(job_directory: Path, project: Path) -> list[Figure]:
    """Three pictures: FSC, Guinier, map."""
    return [_fsc(job_directory), _guinier(job_directory), _slices(job_directory)]


def _general(job_directory: Path) -> dict[str, float]:
    table = read_table(job_directory / "postprocess.star", "general")
    return {name: values[0] for name, values in table.items()}


def _fsc(job_directory: Path) -> Figure:
    table = read_table(job_directory / "postprocess.star", "fsc")
    resolution = float(_general(job_directory)["final_resolution"])
    curves = {"corrected": table["fsc_corrected"]}
    if np.abs(table["fsc_randomised"]).max() > 0:
        curves |= {
            "masked": table["fsc_masked"],
            "unmasked": table["fsc_unmasked"],
            "phases randomised": table["fsc_randomised"],
        }
    figure = new_figure(6.5, 4)
    plot_fsc(figure.subplots(), table["frequency"], curves, resolution)
    caption = f"{resolution:.2f} Å at FSC 0.143. The curve with randomised phases shows what the mask alone adds: it "
    caption += "should fall to zero well before the masked curve does."
    return Figure.from_matplotlib(figure, "fsc", "Fourier shell correlation of the half-maps", caption)


def _guinier(job_directory: Path) -> Figure:
    table = read_table(job_directory / "postprocess.star", "guinier")
    general = _general(job_directory)
    figure = new_figure(6.5, 3.6)
    axes = figure.subplots()
    named = {"log_amplitude": "map", "log_amplitude_weighted": "weighted", "log_amplitude_sharpened": "sharpened"}
    for (name, label), colour in zip(named.items(), (COLOURS[2], COLOURS[0], COLOURS[1]), strict=True):
        use = (table[name] > -99) & (table["squared_frequency"] > 0)
        axes.plot(table["squared_frequency"][use], table[name][use], label=label, color=colour, linewidth=1.4)
    x = table["squared_frequency"]
    if "guinier_slope" in general:
        line = general["guinier_intercept"] + general["guinier_slope"] * x
        axes.plot(x, line, color=INK, linewidth=0.8, linestyle="--", label="fit")
    axes.axvline(1.0 / float(general["final_resolution"]) ** 2, color=COLOURS[0], linewidth=0.8, linestyle=":")
    axes.set_xlabel("1/d² (1/Å²)")
    axes.set_ylabel("ln mean amplitude")
    axes.legend(frameon=False, fontsize=8)
    caption = f"Sharpened with a B factor of {general['b_factor_used']:.0f} Å². Up to the resolution limit (dotted) "
    caption += "the sharpened curve should run level."
    return Figure.from_matplotlib(figure, "guinier", "Guinier plot", caption)


def _slices(job_directory: Path) -> Figure:
    masked = job_directory / "postprocess_masked.mrc"
    volume = read_map(masked if masked.exists() else job_directory / "postprocess.mrc")
    figure = new_figure(9, 3.3)
    for axes, (name, image) in zip(figure.subplots(1, 3), central_slices(volume.density.numpy()), strict=True):
        show_slice(axes, image, name, volume.voxel_size)
    caption = "Central slices of the sharpened map."
    return Figure.from_matplotlib(figure, "slices", "Sharpened map", caption)
