"""The sparse comparison in numba: each pair's product with its projection once, then one dot product a shift.

The table of phases (a few hundred kB) is shared by all images and stays in cache; four shifts are summed at a
time so that each loaded value is used four times.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from vitreous.kernels.compare.cuda import split
from vitreous.kernels.compare.inputs import Samples, WhitenedImages


def sparse(images: WhitenedImages, references: Tensor, phases: Tensor, samples: Samples) -> Tensor:
    """See `compare_sparse`."""
    a, b = samples.orientation_children, samples.shift_children
    out = np.empty((samples.n_entries, a, b), np.float32)
    _sparse(
        split(images.data).contiguous().numpy(),
        images.half_power.contiguous().numpy(),
        split(references).contiguous().numpy(),
        split(phases.conj()).contiguous().numpy(),
        (samples.images, samples.rows, samples.starts, samples.shifts),
        out,
        max(1, min(samples.n_pairs, 8 * numba.get_num_threads())),
    )
    return torch.from_numpy(out)


@numba.njit(cache=True, fastmath=True, inline="always")
def _dot(y, table, t):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for k in range(y.shape[0]):
        total += y[k] * table[t, k]
    return total


@numba.njit(cache=True, fastmath=True, inline="always")
def _dot4(y, table, t):  # type: ignore[no-untyped-def]
    s0 = np.float32(0.0)
    s1 = np.float32(0.0)
    s2 = np.float32(0.0)
    s3 = np.float32(0.0)
    for k in range(y.shape[0]):
        v = y[k]
        s0 += v * table[t, k]
        s1 += v * table[t + 1, k]
        s2 += v * table[t + 2, k]
        s3 += v * table[t + 3, k]
    return s0, s1, s2, s3


@numba.njit(cache=True, fastmath=True, inline="always")
def _product(data, half_power, reference, y):  # type: ignore[no-untyped-def]
    """Fill y with conj(reference) * data (real parts, then imaginary) and return the norm term."""
    m = half_power.shape[0]
    norm = np.float32(0.0)
    for k in range(m):
        pr, pi = reference[k], reference[m + k]
        dr, di = data[k], data[m + k]
        y[k] = pr * dr + pi * di
        y[m + k] = pr * di - pi * dr
        norm += half_power[k] * (pr * pr + pi * pi)
    return norm


@numba.njit(cache=True, fastmath=True, parallel=True)
def _sparse(data, half_power, references, table, samples, out, n_chunks):  # type: ignore[no-untyped-def]
    images, rows, starts, shifts = samples
    n_orient, n_shift = out.shape[1], out.shape[2]
    for chunk in numba.prange(n_chunks):
        y = np.empty(data.shape[1], np.float32)
        for p in range(images.shape[0] * chunk // n_chunks, images.shape[0] * (chunk + 1) // n_chunks):
            i = images[p]
            for a in range(n_orient):
                norm = _product(data[i], half_power[i], references[rows[p] * n_orient + a], y)
                for e in range(starts[p], starts[p + 1]):
                    first = shifts[e] * n_shift
                    if n_shift == 4:
                        s0, s1, s2, s3 = _dot4(y, table, first)
                        out[e, a, 0] = s0 - norm
                        out[e, a, 1] = s1 - norm
                        out[e, a, 2] = s2 - norm
                        out[e, a, 3] = s3 - norm
                    else:
                        for b in range(n_shift):
                            out[e, a, b] = _dot(y, table, first + b) - norm
