"""Sums of spectra in one walk: numba, a few rows of all transforms at a time; arrays flat, their indices unsigned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads

Floats = NDArray[np.float32]
_ROWS = 32  # at a time: the total's stay in the cache while all transforms are added


@njit(cache=True, fastmath=True, nogil=True)
def _steps(ky: Floats, kx: Floats, n_curves: np.uint32, out: NDArray[np.uint32]) -> None:
    """Where in the table of curves the coefficients of rows find their weights."""
    half, n = np.float32(0.5), np.uint64(kx.size)
    for y in range(np.uint64(ky.size)):
        square = ky[y] * ky[y]
        for x in range(n):
            out[y * n + x] = n_curves * np.uint32(np.sqrt(square + kx[x] * kx[x]) + half)


@njit(cache=True, fastmath=True, nogil=True)
def _scale(total: Floats, start: np.uint64, table: Floats, at: NDArray[np.uint32], n: np.uint64) -> None:
    two, one = np.uint64(2), np.uint64(1)
    for x in range(n):
        weight = table[at[x]]
        total[start + two * x] *= weight
        total[start + two * x + one] *= weight


@njit(cache=True, fastmath=True, nogil=True)
def _add(
    total: Floats, other: Floats, start: np.uint64, table: Floats, at: NDArray[np.uint32], r: np.uint32, n: np.uint64
) -> None:
    two, one = np.uint64(2), np.uint64(1)
    for x in range(n):
        weight = table[at[x] + r]
        total[start + two * x] += weight * other[start + two * x]
        total[start + two * x + one] += weight * other[start + two * x + one]


def weigh(transforms: Sequence[Tensor], curves: Tensor, ky: Tensor, kx: Tensor) -> Tensor:
    """See `vitreous.kernels.sums_of_spectra.weigh`."""
    total, *others = (torch.view_as_real(transform).view(-1).numpy() for transform in transforms)
    table = curves.to(torch.float32).T.contiguous().view(-1).numpy()
    rows, columns = (k.to(torch.float32).contiguous().numpy() for k in (ky.view(-1), kx))

    def part(run: slice) -> None:
        at = np.empty(_ROWS * len(columns), np.uint32)
        for first in range(run.start, run.stop, _ROWS):
            last = min(first + _ROWS, run.stop)
            start, n = np.uint64(2 * first * len(columns)), np.uint64((last - first) * len(columns))
            _steps(rows[first:last], columns, np.uint32(len(curves)), at)
            _scale(total, start, table, at, n)
            for r, other in enumerate(others, 1):
                _add(total, other, start, table, at, np.uint32(r), n)

    in_threads(part, len(rows))
    return transforms[0]


@njit(cache=True, fastmath=True, nogil=True)
def _add_power(
    power: Floats, to: np.uint64, columns: np.uint64, transform: Floats, start: np.uint64, step: np.uint64, n: np.uint64
) -> None:
    """n rows of so many columns; start and step: of the transform's rows, in floats."""
    two, one = np.uint64(2), np.uint64(1)
    for y in range(n):
        here, there = start + y * step, to + y * columns
        for x in range(columns):
            re, im = transform[here + two * x], transform[here + two * x + one]
            power[there + x] += re * re + im * im


def add_power(power: Tensor, transform: Tensor, rows: tuple[slice, slice]) -> None:
    """See `vitreous.kernels.sums_of_spectra.add_power`."""
    values, target = torch.view_as_real(transform.contiguous()).view(-1).numpy(), power.view(-1).numpy()
    columns, step, to = power.shape[1], 2 * transform.shape[1], 0
    for run in rows:
        n = run.stop - run.start
        _add_power(
            target, np.uint64(to * columns), np.uint64(columns),
            values, np.uint64(run.start * step), np.uint64(step), np.uint64(n),
        )  # fmt: skip
        to += n
