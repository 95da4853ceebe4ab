"""The map in a page: to turn with the mouse where there is WebGL, with three views rendered beforehand below it."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vitreous.app.report.page import data_uri
from vitreous.app.report.surface import VIEWS, default_level, render_png

_MOST_VOXELS = 104  # a side: some 1.1 million bytes, 1.5 in base64
_HERE = Path(__file__).parent
_MARGIN = 3


def map_view_html(
    density: NDArray[np.floating],
    voxel_size: float,
    mask: NDArray[np.floating] | None = None,
    resolution: NDArray[np.floating] | None = None,
) -> str:
    """HTML of the viewer. density: (z, y, x); resolution: local resolution in A on the same grid, for colour."""
    level = default_level(density, mask)
    cut = _bounds(density, level)
    small = _shrink(density[cut])
    low, high = 0.0, float(np.quantile(small, 0.9995))
    if high <= low:
        return ""
    data: dict[str, object] = {
        "voxels": _bytes(np.clip((small - low) / (high - low), 0, 1)),
        "shape": list(small.shape[::-1]),
        "low": low,
        "high": high,
        "vertex": (_HERE / "viewer_vertex.glsl").read_text(),
        "fragment": (_HERE / "viewer_fragment.glsl").read_text(),
    }
    paint = ""
    if resolution is not None:
        best, worst = _paint_range(resolution, mask)
        data["colour"] = _bytes(np.clip((_shrink(resolution[cut]) - best) / max(worst - best, 1e-6), 0, 1))
        paint = (
            f'<label><input type="checkbox" style="flex:0"> colour by local resolution '
            f"({best:.1f} Å blue to {worst:.1f} Å red)</label>"
        )
    start = int(np.clip(round(255 * level / high), 1, 254))
    views = "".join(
        f'<figure><img alt="{escape(name)}" src="{data_uri(render_png(density[cut], level, view))}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, view in VIEWS.items()
    )
    size = " x ".join(f"{n * voxel_size:.0f}" for n in density[cut].shape)
    script = (_HERE / "viewer.js").read_text()
    return (
        '<div class="viewer" id="map-viewer"><div class="stage"><canvas></canvas></div>'
        f'<label>level <input type="range" min="1" max="254" value="{start}"><output></output></label>{paint}'
        f'<p class="note">Drag to turn, wheel to zoom, double click to start again. {size} Å shown.</p>'
        f'<div class="views">{views}</div></div>'
        f'<script>{script}\nstartMapViewer(document.getElementById("map-viewer"), {json.dumps(data)});</script>'
    )


def _bounds(density: NDArray[np.floating], level: float) -> tuple[slice, slice, slice]:
    """A cube around all that lies above half the level."""
    n = density.shape[0]
    found = np.argwhere(ndimage.binary_opening(density > 0.5 * level))
    if not len(found):
        return slice(0, n), slice(0, n), slice(0, n)
    centre = (found.min(axis=0) + found.max(axis=0)) / 2
    half = int(np.ceil((found.max(axis=0) - found.min(axis=0)).max() / 2)) + _MARGIN
    low = np.clip(np.round(centre).astype(int) - half, 0, max(0, n - 2 * half))
    return tuple(slice(int(start), int(min(n, start + 2 * half))) for start in low)  # type: ignore[return-value]


def _shrink(density: NDArray[np.floating]) -> NDArray[np.float32]:
    """Interpolate down to what a page should carry (linear, after a matching blur)."""
    factor = max(density.shape) / _MOST_VOXELS
    values = density.astype(np.float32)
    if factor <= 1:
        return values
    blurred = ndimage.gaussian_filter(values, 0.4 * factor)
    small: NDArray[np.float32] = ndimage.zoom(blurred, 1 / factor, order=1)
    return small


def _paint_range(resolution: NDArray[np.floating], mask: NDArray[np.floating] | None) -> tuple[float, float]:
    inside = resolution[mask > 0.5] if mask is not None else resolution[resolution > 0]
    inside = inside[inside > 0]
    if not inside.size:
        return 0.0, 1.0
    return float(np.quantile(inside, 0.05)), float(np.quantile(inside, 0.95))


def _bytes(values: NDArray[np.floating]) -> str:
    return base64.b64encode(np.round(255 * values).astype(np.uint8).tobytes()).decode("ascii")
