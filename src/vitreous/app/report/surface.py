"""A shaded picture of a map's surface, in numpy: rotate, find where each line of sight meets the level, light it."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Array = NDArray[np.floating]

# How the array (z, y, x) becomes (away from the viewer, down the picture, right): order of the axes, and which of them
# are reversed. All three are right-handed: what is left in the map is left in the picture.
VIEWS: dict[str, tuple[tuple[int, int, int], tuple[int, ...]]] = {
    "along z": ((0, 1, 2), (0, 1)),
    "along y": ((1, 0, 2), (1,)),
    "along x": ((2, 0, 1), (0, 1)),
}
View = tuple[tuple[int, int, int], tuple[int, ...]]
_LIGHTS = (((-0.45, 0.55, 0.72), 0.78), ((0.8, -0.2, 0.55), 0.28))
_COLOUR = np.array([127, 183, 201], dtype=np.float64)


def default_level(density: Array, mask: Array | None = None) -> float:
    """A level at which the map looks like the molecule.

    Solvent masks are drawn wide: the densest seventh of what they hold draws the chain and not the noise around it.
    Without a mask: three standard deviations above the mean.
    """
    if mask is not None:
        inside = density[mask > 0.5]
        if inside.size:
            return float(np.quantile(inside, 0.86))
    return float(density.mean() + 3 * density.std())


def render(density: Array, level: float, view: View, size: int = 300) -> NDArray[np.uint8]:
    """One picture (size, size, 4), RGBA, of the surface density = level, as a view of VIEWS shows it."""
    turned = _turn(density, view, size)
    # The line of sight is the first axis, its near end first.
    above = turned >= level
    hit = above.any(axis=0)
    index = np.argmax(above, axis=0)
    depth = _refine_depth(turned, index, level)
    normals = _normals(turned, depth)
    light = np.full(hit.shape, 0.16)
    for direction, strength in _LIGHTS:
        unit = np.asarray(direction) / np.linalg.norm(direction)
        light += strength * np.clip(normals @ unit, 0.0, None)
    half = np.asarray([-0.25, 0.3, 0.92]) / np.linalg.norm([-0.25, 0.3, 0.92])
    gloss = 55.0 * np.clip(normals @ half, 0.0, None) ** 24
    near, far = (depth[hit].min(), depth[hit].max()) if hit.any() else (0.0, 1.0)
    fade = 1.0 - 0.45 * np.clip((depth - near) / max(far - near, 1.0), 0.0, 1.0)
    picture = np.zeros((*hit.shape, 4), dtype=np.uint8)
    shade = (light * fade)[..., None] * _COLOUR + (gloss * fade)[..., None]
    picture[..., :3] = np.clip(shade, 0, 255).astype(np.uint8)
    picture[..., 3] = np.where(hit, 255, 0)
    return picture


def render_png(density: Array, level: float, view: View, size: int = 300) -> bytes:
    """The same as PNG bytes; twice the size is drawn and halved, for smooth edges."""
    large = Image.fromarray(render(density, level, view, 2 * size))
    buffer = io.BytesIO()
    large.resize((size, size), Image.Resampling.LANCZOS).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _turn(density: Array, view: View, size: int) -> NDArray[np.float32]:
    """Look along the view, and interpolate to `size` pixels a side."""
    order, reversed_axes = view
    turned = np.flip(np.transpose(density, order), reversed_axes)
    volume = torch.from_numpy(np.ascontiguousarray(turned, dtype=np.float32))
    side = max(volume.shape[1:])
    shape = (volume.shape[0], round(size * volume.shape[1] / side), round(size * volume.shape[2] / side))
    fine = torch.nn.functional.interpolate(volume[None, None], shape, mode="trilinear", align_corners=False)
    found: NDArray[np.float32] = fine[0, 0].numpy()
    return found


def _refine_depth(turned: NDArray[np.float32], index: NDArray[np.intp], level: float) -> NDArray[np.float64]:
    """Where between two samples the level is crossed."""
    before = np.maximum(index - 1, 0)
    inside = np.take_along_axis(turned, index[None], axis=0)[0].astype(np.float64)
    outside = np.take_along_axis(turned, before[None], axis=0)[0].astype(np.float64)
    rise = inside - outside
    fraction = np.where(rise > 0, (level - outside) / np.where(rise > 0, rise, 1.0), 1.0)
    return before + np.clip(fraction, 0.0, 1.0) * (index - before)


def _normals(turned: NDArray[np.float32], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit normals (right, up, towards the viewer) from the density's gradient at the surface."""
    stretch = turned.shape[1] / turned.shape[0]  # picture pixels a voxel: the depth was not interpolated
    y, x = np.indices(depth.shape, dtype=np.float64)

    def at(dz: float, dy: float, dx: float) -> NDArray[np.float64]:
        points = np.stack([depth + dz, y + dy, x + dx])
        found: NDArray[np.float64] = ndimage.map_coordinates(turned, points, order=1, mode="nearest")
        return found.astype(np.float64)

    # One voxel to each side, in every direction.
    along_z = at(1, 0, 0) - at(-1, 0, 0)
    along_y = at(0, stretch, 0) - at(0, -stretch, 0)
    along_x = at(0, 0, stretch) - at(0, 0, -stretch)
    gradient = np.stack([-along_x, along_y, along_z], axis=-1)
    length = np.linalg.norm(gradient, axis=-1, keepdims=True)
    return gradient / np.where(length > 0, length, 1.0)
