"""Selection among all (shift, row) samples of each image, in numba: one image a thread, its logits in cache.

A logit is cross[i, t, r] + rows[i, r] + shifts[i, t]; it is never stored. Most shifts of most images hold no sample
near the best one, so each shift's best logit is noted in the first pass and decides who is looked at again.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from vitreous.kernels.compare.inputs import Samples
from vitreous.kernels.posterior.histogram import DEPTH, N_BINS, bin_of, bins_kept, floor_below


@numba.njit(cache=True, fastmath={"nnan", "nsz"}, inline="always")
def _highest(values, rows):  # type: ignore[no-untyped-def]
    top = np.float32(-np.inf)
    for r in range(rows.shape[0]):
        top = max(top, values[r] + rows[r])
    return top


@numba.njit(cache=True, inline="always")
def _count_bins(values, rows, below_top, counts):  # type: ignore[no-untyped-def]
    """Count samples by bin; below_top: best logit less this shift's term."""
    depth = np.float32(DEPTH)
    for r in range(rows.shape[0]):
        below = below_top - (values[r] + rows[r])
        if below < depth:
            counts[bin_of(below)] += 1


@numba.njit(cache=True, parallel=True)
def floors(cross, rows, shifts, fraction, max_samples):  # type: ignore[no-untyped-def]
    """Lowest logit to keep (n,), best logit of each shift (n, t), and samples kept of each row (n, r)."""
    n, n_shifts, n_rows = cross.shape
    floor = np.empty(n, np.float32)
    tops = np.empty((n, n_shifts), np.float32)
    kept = np.zeros((n, n_rows), np.int32)
    for i in numba.prange(n):
        for t in range(n_shifts):
            tops[i, t] = _highest(cross[i, t], rows[i]) + shifts[i, t]
        top = tops[i].max()
        counts = np.zeros(N_BINS, np.int64)
        for t in range(n_shifts):
            if top - tops[i, t] < DEPTH:
                _count_bins(cross[i, t], rows[i], top - shifts[i, t], counts)
        floor[i] = floor_below(top, bins_kept(counts, fraction, max_samples))
        for t in range(n_shifts):
            if tops[i, t] >= floor[i]:
                least = floor[i] - shifts[i, t]
                for r in range(n_rows):
                    kept[i, r] += cross[i, t, r] + rows[i, r] >= least
    return floor, tops, kept


@numba.njit(cache=True, parallel=True)
def _fill(terms, floor, tops, members, places, lists):  # type: ignore[no-untyped-def]
    """Write the shifts kept of the images `members`; places (n, r): the pair of each row that has any."""
    cross, rows, shifts = terms
    pair_starts, starts, out = lists
    for j in numba.prange(members.shape[0]):
        i, before = members[j], pair_starts[j]
        filled = np.zeros(pair_starts[j + 1] - before, np.int64)
        for t in range(cross.shape[1]):
            if tops[i, t] < floor[i]:
                continue
            least = floor[i] - shifts[i, t]
            for r in range(cross.shape[2]):
                if cross[i, t, r] + rows[i, r] >= least:
                    p = places[j, r]
                    out[starts[p] + filled[p - before]] = t
                    filled[p - before] += 1


class DenseSelection:
    """The samples that matter of images compared with everything, listed for some of the images at a time."""

    def __init__(
        self,
        cross: NDArray[np.float32],
        rows: NDArray[np.float32],
        shifts: NDArray[np.float32],
        fraction: float,
        max_samples: int,
    ) -> None:
        self._terms = (cross, rows, shifts)
        self._floor, self._tops, self._kept = floors(cross, rows, shifts, fraction, max_samples)
        self.counts: NDArray[np.int64] = self._kept.sum(1, dtype=np.int64)
        self.pair_counts: NDArray[np.int64] = np.count_nonzero(self._kept, axis=1).astype(np.int64)

    def of(self, members: NDArray[np.int64]) -> Samples:
        """The samples of some images, numbered by their place in `members`."""
        kept = self._kept[members]
        images, rows = np.nonzero(kept)
        starts = np.concatenate([[0], np.cumsum(kept[images, rows], dtype=np.int64)])
        pair_starts = np.searchsorted(images, np.arange(len(members) + 1))
        places = np.zeros(kept.shape, np.int64)
        places[images, rows] = np.arange(len(images))
        out = np.empty(starts[-1], np.int64)
        _fill(self._terms, self._floor, self._tops, members, places, (pair_starts, starts, out))
        return Samples(images.astype(np.int64), rows.astype(np.int64), starts, out)
