"""The sums in numba: rows are shared out among threads, so no two threads add to the same one.

Each thread keeps its own gains, added up in a fixed order: the same bits for the same number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.compare.inputs import WhitenedImages, as_parts
from vitreous.kernels.weighted_sums.inputs import WeightedSamples, WeightedSums


def sums(
    masked: WhitenedImages,
    unmasked: WhitenedImages,
    references: Tensor,
    phases: Tensor,
    samples: WeightedSamples,
    shell_starts: Tensor,
) -> WeightedSums:
    """See `weighted_sums`."""
    rows, first_pairs = np.unique(samples.rows, return_index=True)
    m = phases.shape[1]
    n_chunks = numba.get_num_threads()
    data = np.zeros((len(rows), 2 * m), np.float32)
    power = np.zeros((len(rows), m), np.float32)
    gains = np.zeros((n_chunks, masked.n_images, len(shell_starts) - 1), np.float64)
    pair_starts = np.append(first_pairs, samples.n_pairs).astype(np.int64)
    # chunks of rows with about equal numbers of samples
    load = samples.starts[pair_starts] + 4 * pair_starts
    chunks = np.searchsorted(load, np.linspace(0, load[-1], n_chunks + 1))
    chunks[0], chunks[-1] = 0, len(rows)
    _sums(
        (as_parts(masked.data).numpy(), masked.half_power.contiguous().numpy()),
        (as_parts(unmasked.data).numpy(), unmasked.half_power.contiguous().numpy()),
        as_parts(references).numpy(),
        as_parts(phases).numpy(),
        (samples.images, samples.rows, samples.starts, samples.shifts, samples.weights),
        (chunks.astype(np.int64), pair_starts, shell_starts.numpy()),
        (data, power, gains),
    )
    complex_data = torch.view_as_complex(torch.from_numpy(data).unflatten(-1, (m, 2)))
    return WeightedSums(rows, complex_data, torch.from_numpy(power), torch.from_numpy(gains.sum(0)))


@numba.njit(cache=True, fastmath=True, inline="always")
def _add_image(data, half_power, mixed, weight, out_data, out_power):  # type: ignore[no-untyped-def]
    for k in range(half_power.shape[0]):
        xr, xi = data[2 * k], data[2 * k + 1]
        gr, gi = mixed[2 * k], mixed[2 * k + 1]
        out_data[2 * k] += xr * gr - xi * gi
        out_data[2 * k + 1] += xr * gi + xi * gr
        out_power[k] += np.float32(2.0) * weight * half_power[k]


@numba.njit(cache=True, fastmath=True, inline="always")
def _add_gain(data, half_power, reference, mixed, weight, shell_starts, each, gains):  # type: ignore[no-untyped-def]
    """Gains by shell; `each` is scratch for the gain of each coefficient (one long loop, then short sums)."""
    for k in range(half_power.shape[0]):
        pr, pi = reference[2 * k], reference[2 * k + 1]
        xr, xi = data[2 * k], data[2 * k + 1]
        gr, gi = mixed[2 * k], mixed[2 * k + 1]
        cross = pr * (xr * gr - xi * gi) + pi * (xr * gi + xi * gr)
        each[k] = cross - weight * half_power[k] * (pr * pr + pi * pi)
    for s in range(shell_starts.shape[0] - 1):
        total = np.float32(0.0)
        for k in range(shell_starts[s], shell_starts[s + 1]):
            total += each[k]
        gains[s] += total


@numba.njit(cache=True, fastmath=True, inline="always")
def _mix(shifts, weights, first, last, table, mixed):  # type: ignore[no-untyped-def]
    """Fill mixed with the weighted sum of phases, four shifts at a time; the sum of the weights."""
    mixed[:] = 0.0
    total = np.float32(0.0)
    for e in range(first, last - 3, 4):
        w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
        t0, t1, t2, t3 = shifts[e], shifts[e + 1], shifts[e + 2], shifts[e + 3]
        total += w0 + w1 + w2 + w3
        for k in range(mixed.shape[0]):
            mixed[k] += w0 * table[t0, k] + w1 * table[t1, k] + w2 * table[t2, k] + w3 * table[t3, k]
    for e in range(last - (last - first) % 4, last):
        w, t = weights[e], shifts[e]
        total += w
        for k in range(mixed.shape[0]):
            mixed[k] += w * table[t, k]
    return total


@numba.njit(cache=True, fastmath=True, parallel=True)
def _sums(masked, unmasked, references, table, samples, layout, out):  # type: ignore[no-untyped-def]
    images, rows, starts, shifts, weights = samples
    chunks, pair_starts, shell_starts = layout
    out_data, out_power, gains = out
    for chunk in numba.prange(chunks.shape[0] - 1):
        mixed = np.empty(table.shape[1], np.float32)
        each = np.empty(table.shape[1] // 2, np.float32)
        for u in range(chunks[chunk], chunks[chunk + 1]):
            for p in range(pair_starts[u], pair_starts[u + 1]):
                i = images[p]
                weight = _mix(shifts, weights, starts[p], starts[p + 1], table, mixed)
                _add_image(unmasked[0][i], unmasked[1][i], mixed, weight, out_data[u], out_power[u])
                _add_gain(
                    masked[0][i], masked[1][i], references[rows[p]], mixed, weight, shell_starts, each, gains[chunk, i]
                )


def pair_totals(samples: WeightedSamples, shifts: NDArray[np.float64]) -> NDArray[np.float64]:
    """See `weighted_sums.pair_totals`."""
    out = np.zeros((samples.n_pairs, 4), np.float64)
    _pair_totals(samples.starts, samples.shifts, samples.weights, np.ascontiguousarray(shifts, np.float64), out)
    return out


@numba.njit(cache=True, parallel=True)
def _pair_totals(starts, shifts, weights, positions, out):  # type: ignore[no-untyped-def]
    for p in numba.prange(starts.shape[0] - 1):
        for e in range(starts[p], starts[p + 1]):
            w = np.float64(weights[e])
            y, x = positions[shifts[e], 0], positions[shifts[e], 1]
            out[p, 0] += w
            out[p, 1] += w * y
            out[p, 2] += w * x
            out[p, 3] += w * (y * y + x * x)
