from __future__ import annotations

import numpy as np
import pytest

from vitreous.kernels.compare import Samples
from vitreous.kernels.posterior import cutoffs, posterior_weights, significant_dense, significant_sparse


def _logits(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * 4).astype(np.float32)


def test_cutoff_keeps_the_fraction_and_hardly_more() -> None:
    logits = _logits(1, 5, 4000)
    floor = cutoffs(logits.reshape(-1), np.arange(6) * 4000, 0.99, 2**62)
    for row, low in zip(logits.astype(np.float64), floor, strict=True):
        weights = np.exp(row - row.max())
        weights /= weights.sum()
        ordered = np.sort(weights)[::-1]
        needed = int(np.searchsorted(np.cumsum(ordered), 0.99)) + 1
        kept = int((row >= low).sum())
        assert weights[row >= low].sum() >= 0.99
        assert needed <= kept <= needed * 1.1 + 2


def test_cutoff_honours_the_limit_on_samples() -> None:
    logits = _logits(2, 3000)
    floor = cutoffs(logits, np.array([0, 3000]), 0.9999, 50)
    assert 1 <= (logits >= floor[0]).sum() <= 50


@pytest.mark.parametrize("most", [2**62, 6])
def test_dense_and_sparse_selection_agree(most: int) -> None:
    n, rows, shifts = 4, 7, 5
    cross, row_terms, shift_terms = _logits(3, n, shifts, rows), _logits(5, n, rows), _logits(6, n, shifts)
    dense = significant_dense(cross, row_terms, shift_terms, 0.9, most)
    everything = Samples(
        np.repeat(np.arange(n), rows),
        np.tile(np.arange(rows), n),
        np.arange(n * rows + 1) * shifts,
        np.tile(np.arange(shifts), n * rows),
    )
    logits = cross + row_terms[:, None] + shift_terms[:, :, None]
    flat = np.ascontiguousarray(logits.transpose(0, 2, 1)).reshape(-1)
    sparse = significant_sparse(everything, flat, n, 0.9, most)
    for members in (np.arange(n), np.array([1, 3])):
        found, expected = dense.of(members), sparse.samples.of(members)
        for name in ("images", "rows", "starts", "shifts"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(dense.counts, sparse.counts)
    np.testing.assert_array_equal(dense.pair_counts, sparse.pair_counts)


def test_a_row_that_is_shut_out_is_never_selected() -> None:
    cross, row_terms, shift_terms = _logits(7, 3, 4, 9), np.zeros((3, 9), np.float32), np.zeros((3, 4), np.float32)
    row_terms[:, 5] = -np.inf
    cross[:, :, 5] += 100
    assert 5 not in significant_dense(cross, row_terms, shift_terms, 1.0, 2**62).of(np.arange(3)).rows


def test_weights_are_the_softmax_and_sum_to_one() -> None:
    samples = Samples(np.array([0, 0, 1]), np.array([1, 3, 0]), np.array([0, 2, 3, 5]), np.array([0, 4, 2, 1, 3]), 2, 4)
    logits = _logits(4, 5, 2, 4)
    weighted, best = posterior_weights(samples, logits, 2, 1.0)
    assert np.all(np.diff(weighted.rows) >= 0)
    for image, entries in ((0, slice(0, 3)), (1, slice(3, 5))):
        mine = np.exp(logits[entries].astype(np.float64))
        of_pairs = np.repeat(weighted.images, np.diff(weighted.starts)) == image
        np.testing.assert_allclose(weighted.weights[of_pairs].sum(), 1.0, rtol=1e-5)
        np.testing.assert_allclose(weighted.weights[of_pairs].max(), mine.max() / mine.sum(), rtol=1e-4)
        np.testing.assert_allclose(best.weights[image], mine.max() / mine.sum(), rtol=1e-5)
        np.testing.assert_allclose(best.log_evidence[image], np.log(mine.sum()), rtol=1e-5)
        entry, child, shift_child = np.unravel_index(int(logits[entries].argmax()), logits[entries].shape)
        assert best.orientation_children[image] == child
        assert best.shifts[image] == samples.shifts[entries][entry] * 4 + shift_child
