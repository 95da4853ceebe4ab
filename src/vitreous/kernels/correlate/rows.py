"""The rows of a correlation: two real signals in one complex inverse transform, sixteen rows at a time, then reduced.

The values of a pixel are compared and summed while they are in the second-level cache; the running maps are touched
once for all signals of a batch.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from vitreous.kernels.correlate.butterflies import LANES, ROW, pack, pack_real, take_up
from vitreous.kernels.correlate.passes import Plan, inverse_passes


def reduce_rows(
    done: NDArray[np.float32],
    plan: Plan,
    labels: NDArray[np.int32],
    offsets: tuple[int, int],
    running: tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float64]],
    trimmed: tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]] | None,
    scratch: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """done (y blocks, signals, half, 2, 16), an even number of signals: transform back, take up in the running maps.

    labels: of the signals, below 0 for what does not count. offsets: of the first and the second signal of each pair,
    at which column the valid ones begin. running: maximum, best, sum of squares; trimmed: cut, count, sum, squares.
    scratch: (threads, padded width, 2, 16) and (threads, valid width, 3, 16).
    """
    place = np.empty_like(plan.order)
    place[plan.order] = np.arange(plan.length)
    args = done, plan.radices, plan.factors, plan.offsets, place, labels, np.array(offsets)
    if trimmed is None:
        empty = np.zeros((0, 0))
        trimmed = empty.astype(np.float32), empty.astype(np.int32), empty, empty
    _reduce_rows(*args, *running, *trimmed, *scratch)


@numba.njit(parallel=True, cache=True, boundscheck=False)
def _reduce_rows(  # type: ignore[no-untyped-def]
    done, radices, factors, passes, place, labels, offsets, maximum, best, squares,
    cuts, counts, cut_sums, cut_squares, scratch, maps,
):  # fmt: skip
    threads, width = scratch.shape[0], scratch.shape[1]
    valid = maximum.shape[1]
    for thread in numba.prange(threads):
        packed, local = scratch[thread], maps[thread]
        kept, numbers = local[:, ::2], local[:, 1].view(np.int32)
        for block in range(thread, done.shape[0], threads):
            kept[:, 0], kept[:, 1] = -np.inf, 0.0
            numbers[:] = np.int32(2147483647)
            start = block * LANES
            for pair in range(done.shape[1] // 2):
                _pack(done[block, 2 * pair], done[block, 2 * pair + 1], packed, place)
                inverse_passes(packed.ctypes.data, width, radices, passes, factors.ctypes.data)
                for part in range(2):
                    if labels[2 * pair + part] < 0:
                        continue
                    _take_up(packed, part, offsets[part], local, labels[2 * pair + part])
                    if len(cuts):
                        _take_up_trimmed(packed, part, offsets[part], start, cuts, counts, cut_sums, cut_squares)
            here = min(LANES, maximum.shape[0] - start)
            _merge(local, numbers, here, valid, maximum[start:], best[start:], squares[start:])


@numba.njit(cache=True, boundscheck=False)
def _pack(first, second, packed, place):  # type: ignore[no-untyped-def]
    """Half spectra of two real signals as one complex spectrum of first + i second, in digit-reversed order."""
    half, width = first.shape[0], packed.shape[0]
    p, q, out = first.ctypes.data, second.ctypes.data, packed.ctypes.data
    pack_real(p, q, out + place[0] * ROW, 0)
    for k in range(1, half - 1):
        pack(p + k * ROW, q + k * ROW, out + place[k] * ROW, out + place[width - k] * ROW)
    last = (half - 1) * ROW
    pack_real(p + last, q + last, out + place[half - 1] * ROW, 0)


@numba.njit(cache=True, boundscheck=False)
def _take_up(packed, part, offset, maps, number):  # type: ignore[no-untyped-def]
    width, valid = packed.shape[0], maps.shape[0]
    values, out, step = packed.ctypes.data + part * ROW // 2, maps.ctypes.data, maps.strides[0]
    whole = min(valid, width - offset)
    for x in range(whole):
        take_up(values + (x + offset) * ROW, out + x * step, number, 0)
    for x in range(whole, valid):
        take_up(values + (x + offset - width) * ROW, out + x * step, number, 0)


@numba.njit(cache=True, boundscheck=False)
def _take_up_trimmed(packed, part, offset, start, cuts, counts, sums, squares):  # type: ignore[no-untyped-def]
    """As _take_up for the sums over correlations below each pixel's cut."""
    width = packed.shape[0]
    for lane in range(min(LANES, cuts.shape[0] - start)):
        y = start + lane
        for x in range(cuts.shape[1]):
            value = packed[(x + offset) % width, part, lane]
            if value < cuts[y, x]:
                counts[y, x] += 1
                sums[y, x] += value
                squares[y, x] += value * value


@numba.njit(cache=True, boundscheck=False)
def _merge(maps, numbers, n_rows, valid, maximum, best, squares):  # type: ignore[no-untyped-def]
    for lane in range(n_rows):
        for x in range(valid):
            high, number = maps[x, 0, lane], numbers[x, lane]
            better = high > maximum[lane, x] or (high == maximum[lane, x] and number < best[lane, x])
            squares[lane, x] += maps[x, 2, lane]
            best[lane, x] = number if better else best[lane, x]
            maximum[lane, x] = high if better else maximum[lane, x]
