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
    at_once = min(templates_at_once(image), len(templates))
    labels = labels[:, : 1 + (twins is not None)]
    workspace = _Workspace(image, at_once, labels.shape[1])
    for start in range(0, len(templates), at_once):
        some = templates[start : start + at_once].to(torch.float32)
        if len(some) < at_once:
            workspace = _Workspace(image, len(some), labels.shape[1])
        _columns_back(image, some, workspace)
        _reduce_rows(image, workspace, labels[start : start + at_once].reshape(-1), statistics)


def templates_at_once(image: SearchImage) -> int:
    """How many templates go together: more save passes over the running maps, fewer stay in the cache."""
    each = 16 * image.valid_shape[0] * (image.padded[1] // 2 + 1)
    return max(2, min(_MOST_TEMPLATES, _BATCH_BYTES // each))


def working_bytes(image: SearchImage) -> int:
    """Memory that `correlate` takes beside its inputs, in bytes."""
    count, box, half = templates_at_once(image), image.box, image.padded[1] // 2 + 1
    columns = 6 * count * _COLUMNS * image.padded[0] * 8
    return count * half * (16 * image.valid_shape[0] + 8 * box) + columns + 4 * _ROW_BYTES


class _Workspace:
    """Arrays that are used again for every few templates: fresh memory would cost as much as the arithmetic.

    per_template: 1, or 2 with twins. done: correlations transformed back along y, (valid_y, signals, half).
    """

    def __init__(self, image: SearchImage, count: int, per_template: int) -> None:
        height, width = image.padded
        half, signals = width // 2 + 1, count * per_template
        self.with_twins = per_template == 2
        self.columns = min(_COLUMNS, half)
        self.padded = torch.zeros(count, self.columns, height, dtype=torch.complex64)  # beyond the box it stays zero
        self.spectra = torch.empty_like(self.padded)
        self.products = torch.empty(signals, self.columns, height, dtype=torch.complex64)
        self.back = torch.empty_like(self.products)
        # numpy asks for huge pages: the transposed write into it touches a page for every row
        self.done = np.empty((image.valid_shape[0], signals, half), np.complex64)
        self.n_rows = max(1, min(image.valid_shape[0], _ROW_BYTES // (signals * width * 4)))
        self.rows = torch.empty(self.n_rows, signals, width)


def _columns_back(image: SearchImage, templates: Tensor, space: _Workspace) -> None:
    """Fill space.done."""
    width = image.padded[1]
    half = width // 2 + 1
    rows_ft = torch.fft.rfft(templates, n=width).numpy().view(np.float64)
    columns, n, done = as_floats(image.columns_ft), space.columns, space.done.view(np.float64)
    for first in range(0, half, n):
        start = min(first, half - n)  # the last columns are done twice rather than in an odd number
        _gather(rows_ft, start, space.padded.numpy().view(np.float64))
        torch.fft.fft(space.padded, out=space.spectra)
        spectra, products = as_floats(space.spectra), as_floats(space.products)
        _multiply(columns[start : start + n], spectra, products, space.with_twins)
        torch.fft.ifft(space.products, out=space.back)
        _scatter(space.back.numpy().view(np.float64), done, start, image.box, space.with_twins)


def as_floats(values: Tensor) -> NDArray[np.float32]:
    """A complex tensor as float32 with real and imaginary parts interleaved in the last axis; no copy."""
    return torch.view_as_real(values).flatten(-2).numpy()


def _reduce_rows(image: SearchImage, space: _Workspace, labels: NDArray[np.int32], statistics: Statistics) -> None:
    """Transform the valid rows back and take them up in the running maps."""
    width, done = image.padded[1], torch.from_numpy(space.done)
    maximum, best, squares = statistics.maximum.numpy(), statistics.best.numpy(), statistics.sum_squares.numpy()
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    for start in range(0, len(done), space.n_rows):
        part = done[start : start + space.n_rows]
        rows = torch.fft.irfft(part, n=width, out=space.rows[: len(part)]).numpy()
        here = slice(start, start + len(part))
        _reduce(rows, space.with_twins, image.box, labels, order, maximum[here], best[here], squares[here])
        if (trimmed := statistics.trimmed) is not None:
            views = [one.numpy()[here] for one in (trimmed.cut, trimmed.count, trimmed.total, trimmed.squares)]
            _reduce_trimmed(rows, space.with_twins, image.box, labels, *views)


@numba.njit(parallel=True, cache=True, boundscheck=False)
def _gather(rows_ft, start, padded):  # type: ignore[no-untyped-def]
    """rows_ft (m, box, half) -> columns [start, start + n) of it, (m, n, height): the first box entries are filled.

    Here and in _scatter complex numbers are moved as one float64 each, eight along a column (a cache line) at a time:
    columns lie a power of two apart and share a cache set, so that a line must be done with at once.
    """
    count, n = padded.shape[0], padded.shape[1]
    box = rows_ft.shape[1]
    for index in numba.prange(count):
        for first in range(0, box - 7, 8):
            for c in range(n):
                for i in range(8):
                    padded[index, c, first + i] = rows_ft[index, first + i, start + c]
        for i in range(box // 8 * 8, box):
            for c in range(n):
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
    for index in numba.prange(signals):
        offset = box if with_twins and index % 2 == 1 else 0
        whole = min(valid, height - offset) // 8 * 8
        for first in range(0, whole, 8):
            for c in range(n):
                for i in range(8):
                    done[first + i, index, start + c] = columns[index, c, first + i + offset]
        for y in range(whole, valid):
            source = (y + offset) % height
            for c in range(n):
                done[y, index, start + c] = columns[index, c, source]


@numba.njit(parallel=True, fastmath={"contract", "reassoc", "nsz"}, cache=True, boundscheck=False)
def _reduce(rows, with_twins, box, labels, order, maximum, best, squares):  # type: ignore[no-untyped-def]
    """Reduce rows (r, signals, width) of correlations over the signals, then into the running maps (r, valid_x).

    order: signals by rising label, those without one left out: of equals the first is then the lowest.
    """
    n_rows, width = rows.shape[0], rows.shape[2]
    valid = maximum.shape[1]
    for r in numba.prange(n_rows):
        high = np.full(valid, -np.inf, np.float32)
        number = np.full(valid, -1, np.int32)
        total = np.zeros(valid, np.float32)
        for index in order:
            label = labels[index]
            offset = box if with_twins and index % 2 == 1 else 0
            inside = min(valid, width - offset)
            values = rows[r, index, offset : offset + inside]
            for x in range(inside):
                value = values[x]
                better = value > high[x]
                total[x] += value * value
                number[x] = label if better else number[x]
                high[x] = value if better else high[x]
            for x in range(inside, valid):  # the last position of a twin in an image as wide as its transform
                value = rows[r, index, x + offset - width]
                total[x] += value * value
                if value > high[x]:
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
