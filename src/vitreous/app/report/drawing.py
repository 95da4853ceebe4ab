"""Pieces that the jobs' figures share: central slices, FSC curves, resolution axes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MatplotlibFigure

INK = "#1b2a38"
COLOURS = ("#0b6e99", "#d1495b", "#8a8f98", "#e39e21", "#3b8b5a")


def new_figure(width: float, height: float) -> MatplotlibFigure:
    """A white figure of width x height inches that lays itself out (no pyplot: no global state)."""
    figure = MatplotlibFigure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # what savefig would look for and import when all wait for the report
    return figure


def show_slice(axes: Axes, image: Float[np.ndarray, "y x"], title: str, pixel_size: float) -> None:
    """Draw a slice in grey, 0.5 to 99.8 percent, with a scale bar."""
    low, high = np.percentile(image, [0.5, 99.8])
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), origin="lower", interpolation="bilinear")
    axes.set_title(title, fontsize=9, color=INK)
    axes.set_axis_off()
    scale_bar(axes, image.shape[-1], pixel_size)


def scale_bar(axes: Axes, width_px: int, pixel_size: float) -> None:
    """A bar of a round length, about a fifth of the picture."""
    wanted = 0.2 * width_px * pixel_size
    nice = max((m * 10.0**e for e in range(0, 6) for m in (1, 2, 5) if m * 10.0**e <= wanted), default=wanted)
    x0, y0 = 0.05 * width_px, 0.05 * width_px
    axes.plot([x0, x0 + nice / pixel_size], [y0, y0], color="white", linewidth=2.5, solid_capstyle="butt")
    axes.text(x0, y0 + 0.02 * width_px, f"{nice:.0f} Å", color="white", fontsize=8, va="bottom")


def central_slices(density: Float[np.ndarray, "z y x"]) -> list[tuple[str, Float[np.ndarray, "a b"]]]:
    """The three slices through the centre with their names."""
    middle = density.shape[-1] // 2
    return [("xy", density[middle]), ("xz", density[:, middle]), ("yz", density[:, :, middle])]


def resolution_axis(axes: Axes, nyquist: float) -> None:
    """Label a frequency axis (1/A, from 0) by resolution in A."""
    ticks = [r for r in (50, 20, 10, 7, 5, 4, 3.5, 3, 2.5, 2, 1.5, 1.2, 1) if r >= nyquist * 0.999]
    axes.set_xticks([1.0 / r for r in ticks], [f"{r:g}" for r in ticks])
    axes.set_xlim(0, 1.0 / nyquist)
    axes.set_xlabel("resolution (Å)")


def plot_fsc(axes: Axes, frequency: np.ndarray, curves: dict[str, np.ndarray], resolution: float | None) -> None:
    """FSC curves by name against frequency (1/A), the 0.143 line, and the resolution read from the first."""
    widths = [2.2, *([1.3] * (len(curves) - 1))]
    for (name, curve), colour, width in zip(curves.items(), COLOURS, widths, strict=False):
        axes.plot(frequency, curve, label=name, color=colour, linewidth=width)
    axes.axhline(0.143, color=INK, linewidth=0.8, linestyle="--")
    axes.axhline(0.0, color=INK, linewidth=0.5)
    if resolution:
        axes.axvline(1.0 / resolution, color=COLOURS[0], linewidth=0.8, linestyle=":")
        axes.annotate(f"{resolution:.2f} Å", (1.0 / resolution, 0.16), fontsize=9, color=COLOURS[0], ha="right")
    axes.set_ylim(-0.1, 1.05)
    axes.set_ylabel("Fourier shell correlation")
    resolution_axis(axes, 1.0 / float(frequency[-1]))
    axes.legend(frameon=False, fontsize=8)


def show_views(axes: Axes, rot: Float[np.ndarray, "n"], tilt: Float[np.ndarray, "n"]) -> None:
    """Directions of view (degrees) on Mollweide axes: counts in cells of equal area, darker where there are more."""
    longitude = np.deg2rad((rot + 180.0) % 360.0 - 180.0)
    latitude = np.deg2rad(90.0 - tilt)
    edges_x = np.linspace(-np.pi, np.pi, 49)
    edges_y = np.arcsin(np.linspace(-1, 1, 25))  # even steps in the sine of latitude
    counts, _, _ = np.histogram2d(longitude, latitude, bins=(edges_x, edges_y))
    shown = np.ma.masked_equal(counts.T, 0)
    axes.pcolormesh(edges_x, edges_y, shown, cmap="Blues", vmin=0, vmax=max(1.0, np.percentile(counts, 99.5)))
    axes.grid(color="#c8ccd2", linewidth=0.4)
    axes.tick_params(labelsize=6)
