"""Turning and adding in one walk: numba, patches shared out among threads; arrays flat and their indices unsigned."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads

Floats = NDArray[np.float32]


@njit(cache=True, fastmath=True, nogil=True)
def _turn_patch(
    total: Floats, source: Floats, row: tuple[Floats, Floats], column: tuple[Floats, Floats], anew: bool
) -> None:
    (cos_y, sin_y), (cos_x, sin_x) = row, column
    n, two, one = np.uint64(cos_x.size), np.uint64(2), np.uint64(1)
    for y in range(np.uint64(cos_y.size)):
        start, c, s = two * y * n, cos_y[y], sin_y[y]
        for x in range(n):
            at = start + two * x
            phase_re, phase_im = c * cos_x[x] - s * sin_x[x], c * sin_x[x] + s * cos_x[x]
            re, im = source[at], source[at + one]
            turned_re, turned_im = re * phase_re - im * phase_im, re * phase_im + im * phase_re
            total[at] = turned_re if anew else total[at] + turned_re
            total[at + one] = turned_im if anew else total[at + one] + turned_im


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
