"""How low a logit may be and still belong to the heaviest samples that hold a fraction of the weight.

A histogram of how far logits lie below the best takes the place of a sort. Bins hold counts alone: a sample in bin b
weighs between exp(-(b + 1) w) and exp(-b w), w the bin's width. What is kept is weighed at the lower bound and what is
left out at the upper, so the fraction is reached for certain; no exponential is taken of any sample.
"""

from __future__ import annotations

import math

import numba
import numpy as np

BINS_PER_UNIT = 64
DEPTH = 30  # logits further below the best weigh less than 1e-13
N_BINS = BINS_PER_UNIT * DEPTH


@numba.njit(cache=True, inline="always")
def bin_of(below):  # type: ignore[no-untyped-def]
    """The bin of a logit that lies `below` (less than DEPTH) the best one."""
    return min(max(np.int64(below * np.float32(BINS_PER_UNIT)), 0), N_BINS - 1)


@numba.njit(cache=True)
def bins_kept(counts, fraction, max_samples):  # type: ignore[no-untyped-def]
    """How many bins from the top to keep: those that hold `fraction` of the weight, but at most max_samples samples.

    The first bin that holds any sample is kept whole, however many they are.
    """
    rest = 0.0
    for b in range(counts.shape[0]):
        rest += counts[b] * math.exp(-b / BINS_PER_UNIT)
    kept, n, edge = 0.0, 0, 0
    for b in range(counts.shape[0]):
        if edge > 0 and n + counts[b] > max_samples:
            break
        kept += counts[b] * math.exp(-(b + 1) / BINS_PER_UNIT)
        rest -= counts[b] * math.exp(-b / BINS_PER_UNIT)
        n += counts[b]
        if counts[b] > 0:
            edge = b + 1
        if kept >= fraction * (kept + max(rest, 0.0)):
            break
    return edge


@numba.njit(cache=True)
def floor_below(top, edge):  # type: ignore[no-untyped-def]
    """The lowest logit of the bins kept; a hair lower, so that float32 rounding does not lose the last sample."""
    return np.float32(top - edge / BINS_PER_UNIT - 1e-6 * abs(top))
