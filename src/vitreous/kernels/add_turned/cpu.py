"""Turning and adding in one walk: numba, patches shared out among threads; arrays flat and their indices unsigned."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads

Floats = NDArray[np.float32]


@njit(inline="always", cache=True, fastmath=True, nogil=True)
def _begin(
    total: Floats, source: Floats, at: np.uint64, n: np.uint64, c: np.float32, s: np.float32, cos: Floats, sin: Floats
) -> None:
    """n coefficients of a row of the source, times (c + i s)(cos + i sin)."""
    two, one = np.uint64(2), np.uint64(1)
    for x in range(n):
        phase_re = c * cos[x] - s * sin[x]
        phase_im = c * sin[x] + s * cos[x]
        re, im = source[at + two * x], source[at + two * x + one]
        total[at + two * x] = re * phase_re - im * phase_im
        total[at + two * x + one] = re * phase_im + im * phase_re


@njit(inline="always", cache=True, fastmath=True, nogil=True)
def _go_on(
    total: Floats, source: Floats, at: np.uint64, n: np.uint64, c: np.float32, s: np.float32, cos: Floats, sin: Floats
) -> None:
    """The same, added to what is there."""
    two, one = np.uint64(2), np.uint64(1)
    for x in range(n):
        phase_re = c * cos[x] - s * sin[x]
        phase_im = c * sin[x] + s * cos[x]
        re, im = source[at + two * x], source[at + two * x + one]
        total[at + two * x] += re * phase_re - im * phase_im
        total[at + two * x + one] += re * phase_im + im * phase_re


@njit(cache=True, fastmath=True, nogil=True)
def _turn_patch(
    total: Floats, source: Floats, row: tuple[Floats, Floats], column: tuple[Floats, Floats], anew: bool
) -> None:
    n = np.uint64(column[0].size)
    for y in range(np.uint64(row[0].size)):
        at = np.uint64(2) * y * n
        if anew:
            _begin(total, source, at, n, row[0][y], row[1][y], column[0], column[1])
        else:
            _go_on(total, source, at, n, row[0][y], row[1][y], column[0], column[1])


def add_turned(total: Tensor, transforms: Tensor, row: Tensor, column: Tensor, anew: bool) -> None:
    """See `vitreous.kernels.add_turned.add_turned`; complex64."""
    rows, columns = (
        (edge.real.to(torch.float32).contiguous().numpy(), edge.imag.to(torch.float32).contiguous().numpy())
        for edge in (row.reshape(-1), column.reshape(-1))
    )
    targets = [torch.view_as_real(patch).view(-1).numpy() for patch in total]
    sources = torch.view_as_real(transforms.contiguous()).view(len(transforms), -1).numpy()

    def part(patches: slice) -> None:
        for number in range(patches.start, patches.stop):
            _turn_patch(targets[number], sources[number], rows, columns, anew)

    in_threads(part, len(targets))
