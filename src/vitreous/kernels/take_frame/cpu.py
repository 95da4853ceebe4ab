"""Taking a frame in by one walk: a row at a time, whose sum over the rows of a bin stays in the cache.

No full fastmath: it would let the compiler take for granted that all values are numbers.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads

Floats = NDArray[np.float32]
_MATHS = {"reassoc", "contract", "nsz"}


@njit(cache=True, fastmath=_MATHS, nogil=True)
def _take_row(raw: Floats, frame: Floats, total: Floats, start: np.uint64, n: np.uint64) -> np.float32:
    row = np.float32(0.0)
    for x in range(n):
        value = raw[start + x]
        frame[start + x] = value
        total[start + x] += value
        row += value
    return row


@njit(cache=True, fastmath=_MATHS, nogil=True)
def _take_row_with_gain(
    raw: Floats, gain: Floats, frame: Floats, total: Floats, start: np.uint64, n: np.uint64
) -> np.float32:
    row = np.float32(0.0)
    for x in range(n):
        value = raw[start + x] * gain[start + x]
        frame[start + x] = value
        total[start + x] += value
        row += value
    return row


@njit(cache=True, fastmath=_MATHS, nogil=True)
def _bin_row(rows: Floats, frame: Floats, start: np.uint64, n: np.uint64, anew: bool) -> None:
    """Begin or go on with the sum of the rows of a bin."""
    if anew:
        for x in range(n):
            rows[x] = frame[start + x]
    else:
        for x in range(n):
            rows[x] += frame[start + x]


@njit(cache=True, fastmath=_MATHS, nogil=True)
def _bin_columns(rows: Floats, factor: np.uint64, binned: Floats, to: np.uint64, n: np.uint64) -> None:
    if factor == np.uint64(2):
        for x in range(n):
            binned[to + x] = rows[np.uint64(2) * x] + rows[np.uint64(2) * x + np.uint64(1)]
        return
    for x in range(n):
        value = np.float32(0.0)
        for i in range(factor):
            value += rows[factor * x + i]
        binned[to + x] = value


@njit(cache=True, nogil=True)
def _take_rows(
    raw: Floats, gain: Floats, frame: Floats, total: Floats, width: int, binned: Floats, binned_width: int, factor: int,
    first: int, last: int,
) -> float:  # fmt: skip
    """Rows first .. last-1; gain, binned: empty for none. Their sum."""
    n, n_binned, by = np.uint64(width), np.uint64(binned_width), np.uint64(factor)
    inside = 0 if binned_width == 0 else binned.size // binned_width * factor
    rows = np.empty(binned_width * factor, np.float32)
    whole = 0.0
    for y in range(first, last):
        start = np.uint64(y * width)
        if gain.size:
            whole += float(_take_row_with_gain(raw, gain, frame, total, start, n))
        else:
            whole += float(_take_row(raw, frame, total, start, n))
        if y < inside:
            _bin_row(rows, frame, start, n_binned * by, y % factor == 0)
            if y % factor == factor - 1:
                _bin_columns(rows, by, binned, np.uint64(y // factor * binned_width), n_binned)
    return whole


def take_frame(
    raw: Tensor, gain: Tensor | None, frame: Tensor, total: Tensor, binned: Tensor | None, factor: int
) -> bool:
    """See `vitreous.kernels.take_frame.take_frame`."""
    height, width = frame.shape
    binned_width = 0 if binned is None else binned.shape[1]
    pixels = _flat(raw), _flat(gain), _flat(frame), _flat(total)
    sums: list[float] = []

    def part(bins: slice) -> None:
        rows = bins.start * factor, min(bins.stop * factor, height)
        sums.append(_take_rows(*pixels, width, _flat(binned), binned_width, factor, *rows))

    in_threads(part, -(-height // factor))
    return bool(np.isfinite(sum(sums)))


def _flat(image: Tensor | None) -> Floats:
    return np.empty(0, np.float32) if image is None else image.view(-1).numpy()
