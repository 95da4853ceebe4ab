"""Warped sums on the CPU: a tile of all frames at a time, so that its sums stay in the cache.

Within a line of a tile the displacement hardly changes: one set of weights, applied along rows and then along columns,
is a loop over contiguous memory. From line to line it follows the field.
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


@njit(cache=True, nogil=True)
def _displacement(field: NDArray[np.float64], u: float, v: float) -> float:
    return field[0] + u * (field[1] + field[2] * u + field[5] * v) + v * (field[3] + field[4] * v)


@njit(cache=True, fastmath=True, nogil=True)
def _filter_rows(
    frame: NDArray[np.float32], field: NDArray[np.float64], corner: tuple[int, int], lowest: int,
    window: NDArray[np.float32], out: NDArray[np.float32],
) -> None:  # fmt: skip
    """The rows that a tile reads, interpolated along x by the displacement of the lines that they become.

    lowest: the tile's least displacement along y, whole pixels. window: room for what lies over an edge.
    """
    height, width = frame.shape
    rows, tile = out.shape
    y, x = corner
    u = (x + 0.5 * (tile - 1)) / width - 0.5
    for j in range(rows):
        row = (y + lowest - 1 + j) % height
        dx = _displacement(field, u, (y + j - 1.5) / height - 0.5)
        first = x + int(np.floor(dx)) - 1
        t = np.float32(dx - np.floor(dx))
        if first >= 0 and first + tile + 3 <= width:
            _along_rows(frame[row, first : first + tile + 3], out[j], t)
        else:
            for i in range(tile + 3):
                window[i] = frame[row, (first + i) % width]
            _along_rows(window, out[j], t)


@njit(cache=True, fastmath=True, nogil=True)
def _add_line(
    sums: NDArray[np.float32], line: int, rows: NDArray[np.float32], s: np.float32, weights: NDArray[np.float32],
    value: NDArray[np.float32],
) -> None:  # fmt: skip
    """Interpolate four rows along y and add them to a line of the sums of a tile, times each one's weight."""
    v0, v1, v2, v3 = _spline_weights(s)
    tile = value.size
    for i in range(tile):
        value[i] = v0 * rows[0, i] + v1 * rows[1, i] + v2 * rows[2, i] + v3 * rows[3, i]
    for r in range(sums.shape[0]):
        weight = weights[r]
        if weight != 0.0:
            for i in range(tile):
                sums[r, line, i] += weight * value[i]


@njit(cache=True, fastmath=True, nogil=True)
def _add_tile(
    sums: NDArray[np.float32], frame: NDArray[np.float32], field: NDArray[np.float64], weights: NDArray[np.float32],
    corner: tuple[int, int], rows: NDArray[np.float32], window: NDArray[np.float32], value: NDArray[np.float32],
) -> None:  # fmt: skip
    """Add a frame to the sums (r, tile, tile) of a tile whose corner is (y, x)."""
    height, width = frame.shape
    tile = sums.shape[1]
    y, x = corner
    u = (x + 0.5 * (tile - 1)) / width - 0.5
    along_y = field[1]
    ends = _displacement(along_y, u, y / height - 0.5), _displacement(along_y, u, (y + tile - 1) / height - 0.5)
    lowest = int(np.floor(min(ends[0], ends[1])))
    spare = rows.shape[0] - tile - 3
    _filter_rows(frame, field[0], corner, lowest, window, rows)
    for j in range(tile):
        dy = _displacement(along_y, u, (y + j) / height - 0.5)
        above = min(max(int(np.floor(dy)) - lowest, 0), spare)
        s = np.float32(min(max(dy - lowest - above, 0.0), 1.0))
        _add_line(sums, j, rows[j + above : j + above + 4], s, weights, value)


@njit(cache=True, fastmath=True, nogil=True)
def _add_warped(
    sums: NDArray[np.float32], frames: NDArray[np.float32], fields: NDArray[np.float64], weights: NDArray[np.float32],
    n_kept: int, tile: tuple[int, int], first: int, last: int,
) -> None:  # fmt: skip
    """Lines of tiles first .. last-1. weights: (n, r). tile: its side, and rows to spare for what moves along it."""
    n, height, width = frames.shape
    side, spare = tile
    window, value = np.empty(side + 3, np.float32), np.empty(side, np.float32)
    rows = np.empty((side + 3 + spare, side), np.float32)
    tile_sums = np.empty((sums.shape[0], side, side), np.float32)
    for y in range(first * side, min(last * side, height), side):
        for x in range(0, width, side):
            tile_sums[:] = 0.0
            for f in range(n):
                _add_tile(tile_sums, frames[f], fields[f], weights[f], (y, x), rows, window, value)
            for r in range(sums.shape[0]):
                for j in range(min(side, height - y)):
                    if r < n_kept:
                        for i in range(min(side, width - x)):
                            sums[r, y + j, x + i] += tile_sums[r, j, i]
                    else:
                        for i in range(min(side, width - x)):
                            sums[r, y + j, x + i] = tile_sums[r, j, i]


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
    out, images = sums.numpy(), frames.to(torch.float32).contiguous().numpy()
    polynomials = fields.to(torch.float64).contiguous().numpy()
    weights = coefficients.to(torch.float32).T.contiguous().numpy()
    tile = tile_size(polynomials, (images.shape[1], images.shape[2]))

    def part(rows: slice) -> None:
        _add_warped(out, images, polynomials, weights, n_kept, tile, rows.start, rows.stop)

    in_threads(part, -(-images.shape[1] // tile[0]))
