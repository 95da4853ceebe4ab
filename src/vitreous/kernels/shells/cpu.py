"""One walk through the volume: numba, planes shared out among threads, added up in a fixed order."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.kernels.shells.reference import TIE
from vitreous.kernels.threads import in_threads

_HALF_UP = np.float32(0.5 + TIE)


def shell_totals(sums: VolumeAccumulator) -> tuple[Tensor, Tensor]:
    """See `vitreous.kernels.shells.shell_totals`."""
    n_planes = sums.data.shape[0]
    by_plane = np.zeros((n_planes, 2, sums.box // 2 + 1))
    weight = sums.weight.contiguous().numpy()

    def work(part: slice) -> None:
        _totals(weight[part], part.start - sums.centre, sums.padding, _last_shell(sums), by_plane[part])

    in_threads(work, n_planes)
    total, count = torch.from_numpy(by_plane.sum(0))
    return total, count


def divide(sums: VolumeAccumulator, prior: Tensor, floor: Tensor, used: Tensor) -> Tensor:
    """See `vitreous.kernels.shells.divide`."""
    padded = sums.box * sums.padding
    stored = min(sums.data.shape[2], padded // 2 + 1)
    out = torch.zeros(padded, padded, stored, dtype=sums.data.dtype)
    data, weight = torch.view_as_real(sums.data.contiguous()).numpy(), sums.weight.contiguous().numpy()
    curves = (prior.to(torch.float32).numpy(), floor.to(torch.float32).numpy(), used.numpy())
    target = torch.view_as_real(out).numpy()

    def work(part: slice) -> None:
        where = (part.start - sums.centre, sums.padding, _last_shell(sums))
        _divide(data[part], weight[part], where, curves, target)

    in_threads(work, sums.data.shape[0])
    return out


def _last_shell(sums: VolumeAccumulator) -> int:
    return min(sums.max_radius, sums.box // 2)


@numba.njit(cache=True, nogil=True)
def _row_end(z, y, padding, last_shell, half):  # type: ignore[no-untyped-def]
    """Number of points of a row that lie within the last shell, or one or two more."""
    reach = padding * (last_shell + 0.5)
    left = reach * reach - z * z - y * y
    return 0 if left < 0 else min(half, int(np.sqrt(left)) + 2)


@numba.njit(cache=True, nogil=True)
def _shell(z, y, x, padding):  # type: ignore[no-untyped-def]
    return int(np.sqrt(np.float32(z * z + y * y + x * x)) / np.float32(padding) + _HALF_UP)


@numba.njit(cache=True, nogil=True)
def _totals(weight, first_plane, padding, last_shell, out):  # type: ignore[no-untyped-def]
    centre = weight.shape[1] // 2
    for plane in range(weight.shape[0]):
        z = first_plane + plane
        for row in range(weight.shape[1]):
            y = row - centre
            for x in range(_row_end(z, y, padding, last_shell, weight.shape[2])):
                shell = _shell(z, y, x, padding)
                if shell <= last_shell:
                    times = 2.0 if x > 0 else 1.0
                    out[plane, 0, shell] += times * weight[plane, row, x]
                    out[plane, 1, shell] += times


@numba.njit(cache=True, nogil=True)
def _divide(data, weight, where, curves, out):  # type: ignore[no-untyped-def]
    first_plane, padding, last_shell = where
    prior, floor, used = curves
    centre, padded = weight.shape[1] // 2, out.shape[0]
    for plane in range(weight.shape[0]):
        z = first_plane + plane
        for row in range(weight.shape[1]):
            y = row - centre
            if max(abs(z), abs(y)) >= padded // 2:
                continue
            source, given, target = data[plane, row], weight[plane, row], out[z % padded, y % padded]
            for x in range(_row_end(z, y, padding, last_shell, target.shape[0])):
                shell = _shell(z, y, x, padding)
                if shell <= last_shell and used[shell] and given[x] > 0:
                    inverse = np.float32(1.0) / max(given[x] + prior[shell], floor[shell])
                    target[x, 0] = source[x, 0] * inverse
                    target[x, 1] = source[x, 1] * inverse
