"""Warped sums on the CPU: a tile of all frames at a time, so that its sums stay in the cache.

Within a tile the displacement hardly changes: one set of weights, applied along rows and then along columns, is a
loop over contiguous memory.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads

_TILES = (64, 32, 16)  # px
_VARIATION = 0.1  # px: how far the displacement of a tile's edge may be from that of its middle


@njit(cache=True, fastmath=True, nogil=True)
def _spline_weights(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    one, sixth = np.float32(1.0), np.float32(1.0 / 6.0)
    rest = one - t
    w0 = rest * rest * rest * sixth
    w3 = t * t * t * sixth
    w1 = np.float32(2.0 / 3.0) - t * t * (one - np.float32(0.5) * t)
    return w0, w1, one - w0 - w1 - w3, w3


@njit(cache=True, fastmath=True, nogil=True)
def _along_rows(row: NDArray[np.float32], out: NDArray[np.float32], t: np.float32) -> None:
    w0, w1, w2, w3 = _spline_weights(t)
    for i in range(out.size):
        out[i] = w0 * row[i] + w1 * row[i + 1] + w2 * row[i + 2] + w3 * row[i + 3]


@njit(cache=True, fastmath=True, nogil=True)
def _filter_rows(
    frame: NDArray[np.float32], y: int, x: int, t: np.float32, window: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """The rows that a tile needs, from (y, x) on, interpolated along x. window: room for what lies over an edge."""
    height, width = frame.shape
    rows, tile = out.shape
    inside = y >= 0 and x >= 0 and y + rows <= height and x + tile + 3 <= width
    for j in range(rows):
        if inside:
            _along_rows(frame[y + j, x : x + tile + 3], out[j], t)
        else:
            for i in range(tile + 3):
                window[i] = frame[(y + j) % height, (x + i) % width]
            _along_rows(window, out[j], t)


@njit(cache=True, fastmath=True, nogil=True)
def _add_tile(
    tile_sums: NDArray[np.float32], rows: NDArray[np.float32], s: np.float32, weights: NDArray[np.float32]
) -> None:
    """Interpolate along y and add to the sums of a tile, times each one's weight."""
    v0, v1, v2, v3 = _spline_weights(s)
    count, tile = tile_sums.shape[0], tile_sums.shape[1]
    value = np.empty(tile, np.float32)
    for j in range(tile):
        for i in range(tile):
            value[i] = v0 * rows[j, i] + v1 * rows[j + 1, i] + v2 * rows[j + 2, i] + v3 * rows[j + 3, i]
        for r in range(count):
            weight = weights[r]
            if weight != 0.0:
                for i in range(tile):
                    tile_sums[r, j, i] += weight * value[i]


@njit(cache=True, nogil=True)
def _displacement(field: NDArray[np.float64], u: float, v: float) -> float:
    return field[0] + u * (field[1] + field[2] * u + field[5] * v) + v * (field[3] + field[4] * v)


@njit(cache=True, fastmath=True, nogil=True)
def _add_warped(
    sums: NDArray[np.float32],
    frames: NDArray[np.float32],
    fields: NDArray[np.float64],
    weights: NDArray[np.float32],
    tile: int,
    first: int,
    last: int,
) -> None:
    """Rows of tiles first .. last-1. weights: (n, r)."""
    n, height, width = frames.shape
    window = np.empty(tile + 3, np.float32)
    rows = np.empty((tile + 3, tile), np.float32)
    tile_sums = np.empty((sums.shape[0], tile, tile), np.float32)
    for y in range(first * tile, min(last * tile, height), tile):
        v = (y + 0.5 * (tile - 1)) / height - 0.5
        for x in range(0, width, tile):
            u = (x + 0.5 * (tile - 1)) / width - 0.5
            tile_sums[:] = 0.0
            for f in range(n):
                dx = _displacement(fields[f, 0], u, v)
                dy = _displacement(fields[f, 1], u, v)
                ix, iy = int(np.floor(dx)), int(np.floor(dy))
                _filter_rows(frames[f], y + iy - 1, x + ix - 1, np.float32(dx - ix), window, rows)
                _add_tile(tile_sums, rows, np.float32(dy - iy), weights[f])
            for r in range(sums.shape[0]):
                for j in range(min(tile, height - y)):
                    for i in range(min(tile, width - x)):
                        sums[r, y + j, x + i] += tile_sums[r, j, i]


def tile_size(fields: NDArray[np.float64], shape: tuple[int, int]) -> int:
    """The largest tile over half of which no displacement changes by more than _VARIATION."""
    size = np.array(shape[::-1], dtype=np.float64)
    # The steepest a quadratic over the field can be along u and along v.
    along_u = np.abs(fields[:, :, 1]) + np.abs(fields[:, :, 2]) + 0.5 * np.abs(fields[:, :, 5])
    along_v = np.abs(fields[:, :, 3]) + np.abs(fields[:, :, 4]) + 0.5 * np.abs(fields[:, :, 5])
    steepest = float((along_u / size[0] + along_v / size[1]).max(initial=0.0))
    return next((tile for tile in _TILES if 0.5 * tile * steepest <= _VARIATION), _TILES[-1])


def add_warped(
    sums: Float[Tensor, "r height width"],
    frames: Float[Tensor, "n height width"],
    fields: Float[Tensor, "n 2 6"],
    coefficients: Float[Tensor, "r n"],
) -> None:
    """See `vitreous.kernels.warp.add_warped`; float32, sums contiguous."""
    out, images = sums.numpy(), frames.to(torch.float32).contiguous().numpy()
    polynomials = fields.to(torch.float64).contiguous().numpy()
    weights = coefficients.to(torch.float32).T.contiguous().numpy()
    tile = tile_size(polynomials, (images.shape[1], images.shape[2]))

    def part(rows: slice) -> None:
        _add_warped(out, images, polynomials, weights, tile, rows.start, rows.stop)

    in_threads(part, -(-images.shape[1] // tile))
