from __future__ import annotations

import numpy as np

from vitreous.kernels.weighted_sums import WeightedSamples, pair_totals


def test_totals_of_each_pair():
    rng = np.random.default_rng(3)
    counts = np.array([3, 1, 4])
    starts = np.concatenate([[0], np.cumsum(counts)])
    weights = rng.random(8).astype(np.float32)
    which, shifts = rng.integers(0, 5, 8), rng.normal(size=(5, 2))
    samples = WeightedSamples(np.array([0, 1, 0]), np.array([0, 2, 5]), starts, which, weights)
    totals = pair_totals(samples, shifts)
    for pair in range(3):
        w, s = weights[starts[pair] : starts[pair + 1]], shifts[which[starts[pair] : starts[pair + 1]]]
        truth = [w.sum(), w @ s[:, 0], w @ s[:, 1], w @ np.square(s).sum(1)]
        assert np.allclose(totals[pair], truth, rtol=1e-5)
