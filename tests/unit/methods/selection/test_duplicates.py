from __future__ import annotations

import numpy as np

from vitreous.methods.selection.duplicates import first_of_each


def test_only_neighbours_on_the_same_micrograph_count():
    positions = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [100.0, 100.0]])
    micrographs = np.array([0, 0, 1, 0])
    assert first_of_each(positions, micrographs, 6.0).tolist() == [True, False, True, True]
    assert first_of_each(positions, micrographs, 4.0).all()


def test_the_worthier_of_two_is_kept():
    positions = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert first_of_each(positions, np.zeros(2, dtype=int), 5.0, np.array([0.2, 0.9])).tolist() == [False, True]


def test_no_two_kept_are_close_and_none_is_dropped_without_need():
    rng = np.random.default_rng(0)
    positions, micrographs = rng.uniform(0, 300, (500, 2)), rng.integers(0, 4, 500)
    kept = first_of_each(positions, micrographs, 25.0)
    distance = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    distance[micrographs[:, None] != micrographs[None]] = np.inf
    np.fill_diagonal(distance, np.inf)
    assert distance[np.ix_(kept, kept)].min() >= 25.0
    assert (distance[np.ix_(~kept, kept)].min(axis=1) < 25.0).all()
    assert first_of_each(np.zeros((0, 2)), np.zeros(0, dtype=int), 5.0).shape == (0,)
