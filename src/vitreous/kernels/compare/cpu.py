"""Pairs of an image and a projection in numba: each pair's product once, then a dot product for each shift.

The table of phases (a few hundred kB) is shared by all images and stays in cache. Chosen shifts are summed four at
a time, so that each loaded value is used four times; all of them are one matrix product.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.compare.cuda import products_in
from vitreous.kernels.compare.inputs import Samples, WhitenedImages, as_parts

_PRODUCTS = 1 << 19  # float32 values of the pairs' products held at a time: they stay in the second-level cache


def sparse(images: WhitenedImages, references: Tensor, phases: Tensor, samples: Samples) -> Tensor:
    """See `compare_sparse`."""
    a, b = samples.orientation_children, samples.shift_children
    out = np.empty((samples.n_entries, a, b), np.float32)
    _sparse(
        as_parts(images.data).numpy(),
        images.half_power.contiguous().numpy(),
        as_parts(references).numpy(),
        as_parts(phases.conj()).numpy(),
        (samples.images, samples.rows, samples.starts, samples.shifts),
        out,
        max(1, min(samples.n_pairs, 8 * numba.get_num_threads())),
    )
    return torch.from_numpy(out)


def all_shifts(
    images: WhitenedImages,
    references: Tensor,
    phases: Tensor,
    pair_images: NDArray[np.int64],
    pair_rows: NDArray[np.int64],
    *,
    low_precision: bool,
) -> Tensor:
    """See `compare_all_shifts`."""
    data, half_power, rows = as_parts(images.data), images.half_power.contiguous(), as_parts(references)
    table = as_parts(phases.conj()).T
    step = max(1, _PRODUCTS // data.shape[1])
    products, norms = torch.empty(min(step, len(pair_rows)), data.shape[1]), torch.empty(len(pair_rows))
    out = torch.empty(len(pair_rows), len(phases))
    for start in range(0, len(pair_rows), step):
        stop = min(start + step, len(pair_rows))
        pairs = pair_images[start:stop], pair_rows[start:stop]
        block = products[: stop - start]
        _products(data.numpy(), half_power.numpy(), rows.numpy(), *pairs, block.numpy(), norms[start:stop].numpy())
        with products_in(low_precision, block.device):
            torch.mm(block, table, out=out[start:stop])
    return out.sub_(norms[:, None])


@numba.njit(cache=True, fastmath=True, parallel=True)
def _products(data, half_power, references, images, rows, out, norms):  # type: ignore[no-untyped-def]
    for p in numba.prange(len(images)):
        norms[p] = _product(data[images[p]], half_power[images[p]], references[rows[p]], out[p])


@numba.njit(cache=True, fastmath=True, inline="always")
def _dot(y, table, t):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for k in range(y.shape[0]):
        total += y[k] * table[t, k]
    return total


@numba.njit(cache=True, fastmath=True, inline="always")
def _dot4(y, table, t0, t1, t2, t3):  # type: ignore[no-untyped-def]
    s0 = np.float32(0.0)
    s1 = np.float32(0.0)
    s2 = np.float32(0.0)
    s3 = np.float32(0.0)
    for k in range(y.shape[0]):
        v = y[k]
        s0 += v * table[t0, k]
        s1 += v * table[t1, k]
        s2 += v * table[t2, k]
        s3 += v * table[t3, k]
    return s0, s1, s2, s3


@numba.njit(cache=True, fastmath=True, inline="always")
def _product(data, half_power, reference, y):  # type: ignore[no-untyped-def]
    """Fill y with conj(reference) * data and return the norm term."""
    norm = np.float32(0.0)
    for k in range(half_power.shape[0]):
        pr, pi = reference[2 * k], reference[2 * k + 1]
        dr, di = data[2 * k], data[2 * k + 1]
        y[2 * k] = pr * dr + pi * di
        y[2 * k + 1] = pr * di - pi * dr
        norm += half_power[k] * (pr * pr + pi * pi)
    return norm


@numba.njit(cache=True, fastmath=True, inline="always")
def _at_shifts(y, table, shifts, first, last, norm, out):  # type: ignore[no-untyped-def]
    for e in range(first, last - 3, 4):
        s0, s1, s2, s3 = _dot4(y, table, shifts[e], shifts[e + 1], shifts[e + 2], shifts[e + 3])
        out[e] = s0 - norm
        out[e + 1] = s1 - norm
        out[e + 2] = s2 - norm
        out[e + 3] = s3 - norm
    for e in range(last - (last - first) % 4, last):
        out[e] = _dot(y, table, shifts[e]) - norm


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
                if n_shift == 1:
                    _at_shifts(y, table, shifts, starts[p], starts[p + 1], norm, out[:, a, 0])
                    continue
                for e in range(starts[p], starts[p + 1]):
                    t = shifts[e] * n_shift
                    if n_shift == 4:
                        s0, s1, s2, s3 = _dot4(y, table, t, t + 1, t + 2, t + 3)
                        out[e, a, 0] = s0 - norm
                        out[e, a, 1] = s1 - norm
                        out[e, a, 2] = s2 - norm
                        out[e, a, 3] = s3 - norm
                    else:
                        for b in range(n_shift):
                            out[e, a, b] = _dot(y, table, t + b) - norm
