"""Correlation on the CPU: contiguous one-dimensional transforms (torch's MKL), all else fused in numba.

For a few templates at once: transform the box's rows (the others are zero); column by column transform, multiply with
the image's column by the conjugate (and by the plain spectrum for the twin) and transform back, while the columns are
in the cache; then, a few rows at a time, transform the valid rows back and reduce them to one maximum, number and sum
of squares a pixel before the running maps are touched. docs/matching.md has what else was tried, and the figures.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.correlate.prepared import SearchImage
from vitreous.kernels.correlate.statistics import Statistics

_COLUMNS = 32  # at once: a few of them with their products stay in the second-level cache
_ROW_BYTES = 1 << 20  # of correlations between the inverse transform and their reduction
_BATCH_BYTES = 64 << 20  # of half-transformed correlations
_MOST_TEMPLATES = 8


def correlate(
    image: SearchImage,
    templates: Float[Tensor, "m box box"],
    numbers: Int[Tensor, "m"],
    twins: Int[Tensor, "m"] | None,
    statistics: Statistics,
) -> None:
    """See kernels.correlate.correlate; float32 transforms, float64 sums of squares."""
    labels = np.full((len(templates), 2), -1, np.int32)
    labels[:, 0] = numbers.numpy()
    if twins is not None:
        labels[:, 1] = twins.numpy()
    at_once = templates_at_once(image)
    for start in range(0, len(templates), at_once):
        stop = start + at_once
        half_done = _columns_done(image, templates[start:stop].to(torch.float32), twins is not None)
        _reduce_rows(image, half_done, labels[start:stop, : 1 + (twins is not None)], statistics)


def templates_at_once(image: SearchImage) -> int:
    """How many templates go together: more save passes over the running maps, fewer stay in the cache."""
    each = 16 * image.valid_shape[0] * (image.padded[1] // 2 + 1)
    return max(2, min(_MOST_TEMPLATES, _BATCH_BYTES // each))


def working_bytes(image: SearchImage) -> int:
    """Memory that `correlate` takes beside its inputs, in bytes."""
    count, box, half = templates_at_once(image), image.box, image.padded[1] // 2 + 1
    columns = 6 * count * _COLUMNS * image.padded[0] * 8
    return count * half * (16 * image.valid_shape[0] + 8 * box) + columns + 4 * _ROW_BYTES


def _columns_done(image: SearchImage, templates: Tensor, with_twins: bool) -> Tensor:
    """Correlations transformed back along y: (valid_y, m * (1 + twins), half) complex64, at valid rows."""
    height, width = image.padded
    half, box, count = width // 2 + 1, image.box, len(templates)
    signals = count * (2 if with_twins else 1)
    rows_ft = torch.fft.rfft(templates, n=width).numpy()
    # numpy asks for huge pages: the transposed write below touches a page for every row
    done = np.empty((image.valid_shape[0], signals, half), np.complex64)
    columns = as_floats(image.columns_ft)
    for start in range(0, half, _COLUMNS):
        n = min(_COLUMNS, half - start)
        padded = torch.zeros(count, n, height, dtype=torch.complex64)
        _gather(rows_ft, start, padded.numpy())
        spectra = torch.fft.fft(padded)
        products = torch.empty(signals, n, height, dtype=torch.complex64)
        _multiply(columns[start : start + n], as_floats(spectra), as_floats(products), with_twins)
        _scatter(torch.fft.ifft(products).numpy(), done, start, box, with_twins)
    return torch.from_numpy(done)


def as_floats(values: Tensor) -> NDArray[np.float32]:
    """A complex tensor as float32 with real and imaginary parts interleaved in the last axis; no copy."""
    return torch.view_as_real(values).flatten(-2).numpy()


def _reduce_rows(image: SearchImage, done: Tensor, labels: NDArray[np.int32], statistics: Statistics) -> None:
    width, count = image.padded[1], int(done.shape[1])
    step = max(1, _ROW_BYTES // (count * width * 4))
    maximum, best, squares = statistics.maximum.numpy(), statistics.best.numpy(), statistics.sum_squares.numpy()
    flat = labels.reshape(-1)
    for start in range(0, len(done), step):
        rows = torch.fft.irfft(done[start : start + step], n=width).numpy()
        here = slice(start, start + len(rows))
        _reduce(rows, labels.shape[1] == 2, image.box, flat, maximum[here], best[here], squares[here])
        if (trimmed := statistics.trimmed) is not None:
            views = [one.numpy()[here] for one in (trimmed.cut, trimmed.count, trimmed.total, trimmed.squares)]
            _reduce_trimmed(rows, labels.shape[1] == 2, image.box, flat, *views)


@numba.njit(parallel=True, cache=True, boundscheck=False)
def _gather(rows_ft, start, padded):  # type: ignore[no-untyped-def]
    """rows_ft (m, box, half) -> columns [start, start + n) of it, (m, n, height): the first box entries are filled."""
    count, n = padded.shape[0], padded.shape[1]
    box = rows_ft.shape[1]
    for index in numba.prange(count):
        for i0 in range(0, box, 16):
            for c in range(n):
                for i in range(i0, min(i0 + 16, box)):
                    padded[index, c, i] = rows_ft[index, i, start + c]


@numba.njit(parallel=True, fastmath=True, cache=True, boundscheck=False)
def _multiply(columns, spectra, products, with_twins):  # type: ignore[no-untyped-def]
    """Interleaved floats: image (n, 2 h) times conj of spectra (m, n, 2 h); for twins also times the plain spectra."""
    count, n, length = spectra.shape
    step = 2 if with_twins else 1
    for task in numba.prange(count * n):
        index, c = task // n, task % n
        a, s, p = columns[c], spectra[index, c], products[step * index, c]
        q = products[step * index + step - 1, c]
        if with_twins:
            for i in range(length // 2):
                rr, ii = a[2 * i] * s[2 * i], a[2 * i + 1] * s[2 * i + 1]
                ri, ir = a[2 * i] * s[2 * i + 1], a[2 * i + 1] * s[2 * i]
                p[2 * i], p[2 * i + 1] = rr + ii, ir - ri
                q[2 * i], q[2 * i + 1] = rr - ii, ir + ri
        else:
            for i in range(length // 2):
                p[2 * i] = a[2 * i] * s[2 * i] + a[2 * i + 1] * s[2 * i + 1]
                p[2 * i + 1] = a[2 * i + 1] * s[2 * i] - a[2 * i] * s[2 * i + 1]


@numba.njit(parallel=True, cache=True, boundscheck=False)
def _scatter(columns, done, start, box, with_twins):  # type: ignore[no-untyped-def]
    """columns (signals, n, height) -> done (valid_y, signals, half) at [start, start + n), a twin box rows further on.

    A twin's inversion is about row box, not about 0: its correlation comes out box pixels too late.
    """
    signals, n, height = columns.shape
    valid = done.shape[0]
    blocks = (valid + 7) // 8
    for block in numba.prange(blocks):
        for index in range(signals):
            offset = box if with_twins and index % 2 == 1 else 0
            for y in range(8 * block, min(8 * block + 8, valid)):
                source = y + offset
                if source >= height:
                    source -= height
                for c in range(n):
                    done[y, index, start + c] = columns[index, c, source]


@numba.njit(parallel=True, fastmath={"contract", "reassoc", "nsz"}, cache=True, boundscheck=False)
def _reduce(rows, with_twins, box, labels, maximum, best, squares):  # type: ignore[no-untyped-def]
    """Reduce rows (r, signals, width) of correlations over the signals, then into the running maps (r, valid_x)."""
    n_rows, signals, width = rows.shape
    valid = maximum.shape[1]
    for r in numba.prange(n_rows):
        high = np.full(valid, -np.inf, np.float32)
        number = np.full(valid, -1, np.int32)
        total = np.zeros(valid, np.float32)
        for index in range(signals):
            label = labels[index]
            if label < 0:
                continue
            offset = box if with_twins and index % 2 == 1 else 0
            inside = min(valid, width - offset)
            values = rows[r, index, offset : offset + inside]
            for x in range(inside):
                value = values[x]
                better = value > high[x] or (value == high[x] and label < number[x])
                total[x] += value * value
                number[x] = label if better else number[x]
                high[x] = value if better else high[x]
            for x in range(inside, valid):  # the last position of a twin in an image as wide as its transform
                value = rows[r, index, x + offset - width]
                total[x] += value * value
                if value > high[x] or (value == high[x] and label < number[x]):
                    number[x], high[x] = label, value
        for x in range(valid):
            better = high[x] > maximum[r, x] or (high[x] == maximum[r, x] and number[x] < best[r, x])
            squares[r, x] += total[x]
            best[r, x] = number[x] if better else best[r, x]
            maximum[r, x] = high[x] if better else maximum[r, x]


@numba.njit(parallel=True, cache=True, boundscheck=False)
def _reduce_trimmed(rows, with_twins, box, labels, cuts, counts, sums, squares):  # type: ignore[no-untyped-def]
    """As _reduce for the sums over correlations below each pixel's cut."""
    n_rows, signals, width = rows.shape
    valid = sums.shape[1]
    for r in numba.prange(n_rows):
        kept = np.zeros(valid, np.int32)
        first = np.zeros(valid, np.float32)
        second = np.zeros(valid, np.float32)
        for index in range(signals):
            if labels[index] < 0:
                continue
            offset = box if with_twins and index % 2 == 1 else 0
            inside = min(valid, width - offset)
            for x in range(valid):
                value = rows[r, index, x + offset] if x < inside else rows[r, index, x + offset - width]
                below = value < cuts[r, x]
                kept[x] += below
                first[x] += value if below else np.float32(0.0)
                second[x] += value * value if below else np.float32(0.0)
        for x in range(valid):
            counts[r, x] += kept[x]
            sums[r, x] += first[x]
            squares[r, x] += second[x]
