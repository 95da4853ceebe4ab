"""Posterior bookkeeping in numba, one image a thread."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from vitreous.kernels.posterior.histogram import DEPTH, N_BINS, bin_of, bins_kept, floor_below


@numba.njit(cache=True, parallel=True)
def cutoffs(logits, starts, fraction, max_samples):  # type: ignore[no-untyped-def]
    """See `posterior.cutoffs`."""
    n = starts.shape[0] - 1
    floor = np.empty(n, np.float32)
    for i in numba.prange(n):
        top = np.float32(-np.inf)
        for e in range(starts[i], starts[i + 1]):
            top = max(top, logits[e])
        counts = np.zeros(N_BINS, np.int64)
        for e in range(starts[i], starts[i + 1]):
            below = top - logits[e]
            if below < DEPTH:
                counts[bin_of(below)] += 1
        floor[i] = floor_below(top, bins_kept(counts, fraction, max_samples))
    return floor


@numba.njit(cache=True, parallel=True)
def best_samples(logits, starts, images, floor, n):  # type: ignore[no-untyped-def]
    """Top logit, log evidence, best (pair, child, pair's entry) of each image, and kept samples of (pair, child)."""
    n_pairs = images.shape[0]
    n_orient, n_shift = logits.shape[1], logits.shape[2]
    top = np.full(n, -np.inf, np.float64)
    evidence = np.full(n, -np.inf, np.float64)
    best_pair, best_child, best_entry = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    kept = np.zeros((n_pairs, n_orient), np.int64)
    first = np.searchsorted(images, np.arange(n + 1))
    for i in numba.prange(n):
        for p in range(first[i], first[i + 1]):
            for e in range(starts[p], starts[p + 1]):
                for a in range(n_orient):
                    for b in range(n_shift):
                        value = logits[e, a, b]
                        kept[p, a] += value >= floor[i]
                        if value > top[i]:
                            top[i] = value
                            best_pair[i], best_child[i], best_entry[i] = p, a, e * n_shift + b
        total = 0.0
        for e in range(starts[first[i]], starts[first[i + 1]]):
            for a in range(n_orient):
                for b in range(n_shift):
                    total += math.exp(logits[e, a, b] - top[i])
        evidence[i] = top[i] + math.log(total) if total > 0 else -np.inf
    return top, evidence, best_pair, best_child, best_entry, kept


def emit(
    logits: NDArray[np.float32],
    samples: tuple[NDArray[np.int64], ...],
    floor: NDArray[np.float32],
    kept: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The fields of WeightedSamples: kept (pair, child) sorted by fine row, weights of an image summing to one."""
    images, rows, starts, shifts = samples
    pairs, children = np.nonzero(kept)
    fine_rows = rows[pairs] * logits.shape[1] + children
    order = np.argsort(fine_rows, kind="stable")
    pairs, children, fine_rows = pairs[order], children[order], fine_rows[order]
    out_starts = np.concatenate([[0], np.cumsum(kept[pairs, children])]).astype(np.int64)
    out_shifts = np.empty(out_starts[-1], np.int64)
    weights = np.empty(out_starts[-1], np.float32)
    offsets = _kept_log_sum(logits, images, starts, floor)
    _emit(logits, (images, starts, shifts), floor, offsets, pairs, children, (out_starts, out_shifts, weights))
    return images[pairs], fine_rows.astype(np.int64), out_starts, out_shifts, weights


@numba.njit(cache=True, parallel=True)
def _kept_log_sum(logits, images, starts, floor):  # type: ignore[no-untyped-def]
    n = floor.shape[0]
    out = np.zeros(n, np.float64)
    first = np.searchsorted(images, np.arange(n + 1))
    for i in numba.prange(n):
        total = 0.0
        for e in range(starts[first[i]], starts[first[i + 1]]):
            for a in range(logits.shape[1]):
                for b in range(logits.shape[2]):
                    if logits[e, a, b] >= floor[i]:
                        total += math.exp(logits[e, a, b] - np.float64(floor[i]))
        out[i] = floor[i] + math.log(total) if total > 0 else 0.0
    return out


@numba.njit(cache=True, parallel=True)
def _emit(logits, samples, floor, offsets, pairs, children, out):  # type: ignore[no-untyped-def]
    images, starts, shifts = samples
    out_starts, out_shifts, weights = out
    n_shift = logits.shape[2]
    for q in numba.prange(pairs.shape[0]):
        p, a = pairs[q], children[q]
        i = images[p]
        to = out_starts[q]
        for e in range(starts[p], starts[p + 1]):
            for b in range(n_shift):
                if logits[e, a, b] >= floor[i]:
                    out_shifts[to] = shifts[e] * n_shift + b
                    weights[to] = math.exp(logits[e, a, b] - offsets[i])
                    to += 1
