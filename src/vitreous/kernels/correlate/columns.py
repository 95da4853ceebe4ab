"""The columns of a correlation: forward transform, product with the image and inverse transform, sixteen at a time.

Decimation in frequency leaves the spectrum in digit-reversed order, the product does not mind, and decimation in time
takes it from there: nothing is reordered. A template fills the first rows of a column only, so that the first pass is
a multiplication; blocks that fit the first-level cache go through all further passes, product included, at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from vitreous.kernels.correlate.butterflies import LANES, ROW, product, products, take, transpose
from vitreous.kernels.correlate.passes import CACHED_ROWS, Plan, forward_pass, inverse_pass, plan_transform


def block_starts(half: int) -> NDArray[np.int64]:
    """First columns of the blocks; the last does some columns twice. Raises ValueError below sixteen columns."""
    if half < LANES:
        raise ValueError(f"{half} columns: at least {LANES} go together")
    return np.minimum(np.arange(0, half, LANES), half - LANES)


@dataclass(frozen=True)
class BlockedImage:
    """An image's half transform over its number of pixels, sixteen columns a block, and how its columns and rows go.

    values: (blocks, padded_y, 2, 16), frequencies in the order of the columns' plan.
    """

    values: NDArray[np.float32]
    columns: Plan
    rows: Plan


def block_image(columns: NDArray[np.complex128], padded: tuple[int, int], box: int) -> BlockedImage:
    """From columns (half, padded_y). The transforms back are unnormalised: the number of pixels is divided by here."""
    down, across = plan_transform(padded[0], box), plan_transform(padded[1], padded[1])
    scaled = columns[:, down.order] / (padded[0] * padded[1])
    picked = scaled[block_starts(len(columns))[:, None] + np.arange(LANES)].transpose(0, 2, 1)
    return BlockedImage(np.stack([picked.real, picked.imag], 2).astype(np.float32, order="C"), down, across)


def columns_back(
    rows_ft: NDArray[np.complex64],
    image: BlockedImage,
    done: NDArray[np.float32],
    scratch: NDArray[np.float32],
    *,
    with_twins: bool,
) -> None:
    """Templates with their rows transformed (m, box, half) to correlations with their columns transformed back, `done`.

    done: (y blocks, signals, half, 2, 16), lanes are the 16 rows of a block. Of a template's two signals the first is
    its correlation, the second its twin's, read box rows further on: a twin's inversion is about row box, so that its
    correlation comes out box pixels too late. scratch: (threads, 2, length + 16, 2, 16).
    """
    rows, plan = rows_ft.view(np.float32), image.columns
    starts = block_starts(rows_ft.shape[-1])
    _columns_back(
        rows, image.values, starts, plan.radices, plan.factors, plan.offsets, plan.spread, done, scratch, with_twins
    )


@numba.njit(parallel=True, cache=True, boundscheck=False)
def _columns_back(  # type: ignore[no-untyped-def]
    rows_ft, image, starts, radices, factors, offsets, spread, done, scratch, with_twins
):
    count, box = rows_ft.shape[0], rows_ft.shape[1]
    signals = 2 if with_twins else 1
    threads = scratch.shape[0]
    length = scratch.shape[2] - LANES
    for thread in numba.prange(threads):
        first, second = scratch[thread, 0], scratch[thread, 1]
        for task in range(thread, len(starts) * count, threads):
            block, index = task // count, task % count
            _spread(rows_ft[index], 2 * starts[block], first[:length], radices[0], spread)
            _through(first[:length], second[:length], image[block], radices, factors, offsets, with_twins)
            _write(first, done[:, signals * index], starts[block], 0)
            if with_twins:
                _write(second, done[:, signals * index + 1], starts[block], box)


@numba.njit(cache=True, boundscheck=False)
def _spread(rows, column, out, radix, spread):  # type: ignore[no-untyped-def]
    """The first pass over a column whose rows beyond the box are zero: each of its outputs is one input, turned."""
    box, stride = rows.shape[0], out.shape[0] // radix
    source, step = rows.ctypes.data + 4 * column, rows.strides[0]
    target, table = out.ctypes.data, spread.ctypes.data
    for k in range(radix):
        for j in range(box):
            take(source + j * step, target + (k * stride + j) * ROW, table + 8 * (j * radix + k), 0)
        out[k * stride + box : (k + 1) * stride] = 0.0


@numba.njit(cache=True, boundscheck=False)
def _through(first, second, image, radices, factors, offsets, with_twins):  # type: ignore[no-untyped-def]
    """All passes after the first, the product, and all passes back."""
    length, passes = first.shape[0], len(radices)
    base, other, table = first.ctypes.data, second.ctypes.data, factors.ctypes.data
    n, outer = length // radices[0], 1
    while outer < passes - 1 and n > CACHED_ROWS:
        forward_pass(base, length, n, radices[outer], table + offsets[outer])
        n //= radices[outer]
        outer += 1
    for start in range(0, length * ROW, n * ROW):
        row, twin, theirs = base + start, other + start, image.ctypes.data + start
        inner = n
        for i in range(outer, passes):
            forward_pass(row, n, inner, radices[i], table + offsets[i])
            inner //= radices[i]
        for j in range(0, n * ROW, ROW):
            if with_twins:
                products(row + j, theirs + j, twin + j, 0)
            else:
                product(row + j, theirs + j, 0, 0)
        for i in range(passes - 1, outer - 1, -1):
            inner *= radices[i]
            inverse_pass(row, n, inner, radices[i], table + offsets[i])
            if with_twins:
                inverse_pass(twin, n, inner, radices[i], table + offsets[i])
    for i in range(outer - 1, -1, -1):
        n *= radices[i]
        inverse_pass(base, length, n, radices[i], table + offsets[i])
        if with_twins:
            inverse_pass(other, length, n, radices[i], table + offsets[i])


@numba.njit(cache=True, boundscheck=False)
def _write(rows, done, column, offset):  # type: ignore[no-untyped-def]
    """Rows from `offset` on, sixteen a block, lanes exchanged with rows, to columns from `column` on of one signal."""
    length = rows.shape[0] - LANES
    rows[length:] = rows[:LANES]  # a block may go on around the end
    source, target = rows.ctypes.data, done.ctypes.data + column * ROW
    for block in range(done.shape[0]):
        first = (offset + block * LANES) % length
        transpose(source + first * ROW, target + block * done.strides[0], 0, 0)
