"""Warped sums on the CPU: a tile of all frames at a time, so that its sums stay in the cache.

Over a tile the displacement is taken for linear: each frame is interpolated along rows and then along columns in loops
over contiguous memory, four pixels' cubic polynomial in a position that changes from pixel to pixel. Tiles of the
interpolated frames are then added to the sums four frames and two sums at a time. Arrays are flat and their indices
unsigned: a view of a row is a counted reference, dearer than the arithmetic of the row.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads

Floats = NDArray[np.float32]

_TILES = (64, 32, 16)  # px
# px: how far the displacement at a tile's edge may be from that at its middle. The four pixels are those of the
# middle; a position so far beyond them is off the spline by a sixth of its cube.
_VARIATION = 0.25
_STEEPEST = 0.5  # px over half a tile: what is steeper is not followed
_STRIP = 512  # px of a tile that are added at a time: those of 12 frames fit the first cache


@njit(cache=True, fastmath=True, nogil=True)
def _interpolate(
    source: Floats, at: np.uint64, step: np.uint64, out: Floats, to: np.uint64, n: np.uint64,
    from_middle: Floats, t: np.float32, slope: np.float32,
) -> None:  # fmt: skip
    """Cubic B-spline of four neighbours, `step` apart in the source, at t + slope * from_middle after the second."""
    half, sixth, two_thirds = np.float32(0.5), np.float32(1.0 / 6.0), np.float32(2.0 / 3.0)
    second, third, fourth = at + step, at + step + step, at + step + step + step
    for i in range(n):
        a, b, c, d = source[at + i], source[second + i], source[third + i], source[fourth + i]
        x = t + slope * from_middle[i]
        outer = a + c
        cubic = sixth * (d - a) + half * (b - c)
        out[to + i] = sixth * outer + two_thirds * b + x * (half * (c - a) + x * (half * outer - b + x * cubic))


@njit(cache=True, nogil=True)
def _displacement(field: NDArray[np.float64], axis: int, u: float, v: float) -> float:
    return (
        field[axis, 0] + u * (field[axis, 1] + field[axis, 2] * u + field[axis, 5] * v)
        + v * (field[axis, 3] + field[axis, 4] * v)
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _slope(field: NDArray[np.float64], axis: int, u: float, v: float, width: int, side: int) -> np.float32:
    """Change of a displacement from pixel to pixel along a line, within what is followed."""
    steepest = 2.0 * _STEEPEST / side
    slope = (field[axis, 1] + 2.0 * field[axis, 2] * u + field[axis, 5] * v) / width
    return np.float32(min(max(slope, -steepest), steepest))


@njit(cache=True, fastmath=True, nogil=True)
def _filter_rows(
    images: Floats, start: int, shape: tuple[int, int], field: NDArray[np.float64], corner: tuple[int, int],
    lowest: int, from_middle: Floats, window: Floats, out: Floats,
) -> None:  # fmt: skip
    """The rows that a tile reads, interpolated along x by the displacement of the lines that they become.

    start: where the frame begins. lowest: the tile's least displacement along y, whole pixels. window: room for what
    lies over an edge.
    """
    height, width = shape
    side, one = from_middle.size, np.uint64(1)
    y, x = corner
    u = (x + 0.5 * (side - 1)) / width - 0.5
    row = (y + lowest - 1) % height
    for j in range(out.size // side):
        v = (y + j - 1.5) / height - 0.5
        dx = _displacement(field, 0, u, v)
        first, t = x + int(np.floor(dx)) - 1, np.float32(dx - np.floor(dx))
        slope, to = _slope(field, 0, u, v, width, side), np.uint64(j * side)
        line = start + row * width
        if first >= 0 and first + side + 3 <= width:
            _interpolate(images, np.uint64(line + first), one, out, to, np.uint64(side), from_middle, t, slope)
        else:
            for i in range(side + 3):
                window[i] = images[line + (first + i) % width]
            _interpolate(window, np.uint64(0), one, out, to, np.uint64(side), from_middle, t, slope)
        row = row + 1 if row + 1 < height else 0


@njit(cache=True, fastmath=True, nogil=True)
def _warp_tile(
    images: Floats, start: int, shape: tuple[int, int], field: NDArray[np.float64], corner: tuple[int, int],
    from_middle: Floats, rows: Floats, window: Floats, out: Floats, to: int,
) -> None:  # fmt: skip
    """A frame at the displaced positions of a tile whose corner is (y, x)."""
    height, width = shape
    side = from_middle.size
    y, x = corner
    u = (x + 0.5 * (side - 1)) / width - 0.5
    ends = _displacement(field, 1, u, y / height - 0.5), _displacement(field, 1, u, (y + side - 1) / height - 0.5)
    lowest = int(np.floor(min(ends[0], ends[1])))
    spare = rows.size // side - side - 3
    _filter_rows(images, start, shape, field, corner, lowest, from_middle, window, rows)
    for j in range(side):
        v = (y + j) / height - 0.5
        dy = _displacement(field, 1, u, v)
        above = min(max(int(np.floor(dy)) - lowest, 0), spare)
        s = np.float32(min(max(dy - lowest - above, 0.0), 1.0))
        _interpolate(
            rows, np.uint64((j + above) * side), np.uint64(side), out, np.uint64(to + j * side), np.uint64(side),
            from_middle, s, _slope(field, 1, u, v, width, side),
        )  # fmt: skip


@njit(cache=True, fastmath=True, nogil=True)
def _add_four(
    sums: Floats, a: np.uint64, b: np.uint64, values: Floats, v0: np.uint64, step: np.uint64, n: np.uint64,
    weights: Floats, f: int, r: int,
) -> None:  # fmt: skip
    """Add four frames' values (from v0 on, `step` apart) to two sums, which begin at a and b, times weights (n, r)."""
    a0, a1, a2, a3 = weights[f, r], weights[f + 1, r], weights[f + 2, r], weights[f + 3, r]
    b0, b1, b2, b3 = weights[f, r + 1], weights[f + 1, r + 1], weights[f + 2, r + 1], weights[f + 3, r + 1]
    v1, v2, v3 = v0 + step, v0 + step + step, v0 + step + step + step
    for i in range(n):
        w, x, y, z = values[v0 + i], values[v1 + i], values[v2 + i], values[v3 + i]
        sums[a + i] += a0 * w + a1 * x + a2 * y + a3 * z
        sums[b + i] += b0 * w + b1 * x + b2 * y + b3 * z


@njit(cache=True, fastmath=True, nogil=True)
def _add_values(sums: Floats, values: Floats, weights: Floats, pixels: int) -> None:
    """sums (r, pixels) of values (n, pixels) times weights (n, r); n a multiple of four, r of two."""
    n_frames, n_sums = weights.shape
    sums[:] = 0.0
    for start in range(0, pixels, _STRIP):
        n = np.uint64(min(_STRIP, pixels - start))
        for r in range(0, n_sums, 2):
            for f in range(0, n_frames, 4):
                some = False
                for k in range(4):
                    some |= weights[f + k, r] != 0.0 or weights[f + k, r + 1] != 0.0
                if some:
                    a, v = np.uint64(r * pixels + start), np.uint64(f * pixels + start)
                    _add_four(sums, a, a + np.uint64(pixels), values, v, np.uint64(pixels), n, weights, f, r)


@njit(cache=True, fastmath=True, nogil=True)
def _store(
    sums: Floats, shape: tuple[int, int, int], tile_sums: Floats, corner: tuple[int, int], side: int, n_kept: int
) -> None:
    n_sums, height, width = shape
    y, x = corner
    n = np.uint64(min(side, width - x))
    for r in range(n_sums):
        for j in range(min(side, height - y)):
            line, to = np.uint64((r * side + j) * side), np.uint64((r * height + y + j) * width + x)
            if r < n_kept:
                for i in range(n):
                    sums[to + i] += tile_sums[line + i]
            else:
                for i in range(n):
                    sums[to + i] = tile_sums[line + i]


@njit(cache=True, fastmath=True, nogil=True)
def _add_warped(
    sums: Floats, n_kept: int, shape: tuple[int, int, int], images: Floats, fields: NDArray[np.float64],
    weights: Floats, tile: tuple[int, int], first: int, last: int,
) -> None:  # fmt: skip
    """Lines of tiles first .. last-1. shape: of the sums. weights: (n, r) filled up with zeros to fours and pairs.

    tile: its side, and rows to spare for what moves along it.
    """
    _, height, width = shape
    side, spare = tile
    window, rows = np.empty(side + 3, np.float32), np.empty((side + 3 + spare) * side, np.float32)
    from_middle = (np.arange(side) - 0.5 * (side - 1)).astype(np.float32)
    pixels = side * side
    values = np.zeros(weights.shape[0] * pixels, np.float32)
    tile_sums = np.empty(weights.shape[1] * pixels, np.float32)
    for y in range(first * side, min(last * side, height), side):
        for x in range(0, width, side):
            for f in range(len(fields)):
                _warp_tile(
                    images, f * height * width, (height, width), fields[f], (y, x),
                    from_middle, rows, window, values, f * pixels,
                )  # fmt: skip
            _add_values(tile_sums, values, weights, pixels)
            _store(sums, shape, tile_sums, (y, x), side, n_kept)


def tile_size(fields: NDArray[np.float64], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest tile over half of whose width no displacement changes by more than _VARIATION.

    And how far it may change over the tile's height, in whole pixels.
    """
    # The steepest a quadratic over the field can be along u and along v.
    along_u = np.abs(fields[:, :, 1]) + np.abs(fields[:, :, 2]) + 0.5 * np.abs(fields[:, :, 5])
    along_v = np.abs(fields[:, :, 3]) + np.abs(fields[:, :, 4]) + 0.5 * np.abs(fields[:, :, 5])
    steepest = float(along_u.max(initial=0.0)) / shape[1]
    tile = next((tile for tile in _TILES if 0.5 * tile * steepest <= _VARIATION), _TILES[-1])
    return tile, 1 + int(np.ceil(tile * float(along_v.max(initial=0.0)) / shape[0]))


def add_warped(
    sums: Float[Tensor, "r height width"],
    frames: Float[Tensor, "n height width"],
    fields: Float[Tensor, "n 2 6"],
    coefficients: Float[Tensor, "r n"],
    n_kept: int,
) -> None:
    """See `vitreous.kernels.warp.add_warped`; float32, sums contiguous."""
    out, images = sums.view(-1).numpy(), frames.to(torch.float32).reshape(-1).numpy()
    shape = (sums.shape[0], sums.shape[1], sums.shape[2])
    polynomials = fields.to(torch.float64).contiguous().numpy()
    weights = np.zeros((-(-len(frames) // 4) * 4, -(-len(sums) // 2) * 2), np.float32)
    weights[: len(frames), : len(sums)] = coefficients.T.numpy()
    tile = tile_size(polynomials, shape[1:])

    def part(rows: slice) -> None:
        _add_warped(out, n_kept, shape, images, polynomials, weights, tile, rows.start, rows.stop)

    in_threads(part, -(-shape[1] // tile[0]))
