from __future__ import annotations

import numpy as np
import pytest

from vitreous.core.neighbours import keep_best_apart


def greedy(points: np.ndarray, scores: np.ndarray, distance: float) -> np.ndarray:
    """The definition, one point at a time."""
    kept = np.zeros(len(points), dtype=bool)
    for index in np.argsort(-scores, kind="stable"):
        if not kept.any() or np.hypot(*(points[kept] - points[index]).T).min() >= distance:
            kept[index] = True
    return kept


@pytest.mark.parametrize("distance", [0.5, 4.0, 15.0, 200.0])
def test_rounds_keep_what_the_greedy_loop_keeps(distance):
    rng = np.random.default_rng(1)
    points, scores = rng.uniform(0, 100, (300, 2)), rng.normal(size=300)
    np.testing.assert_array_equal(keep_best_apart(points, scores, distance), greedy(points, scores, distance))


def test_a_point_in_the_shadow_of_a_dropped_one_stays():
    points = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 6.0]])
    assert keep_best_apart(points, np.array([3.0, 2.0, 1.0]), 4.0).tolist() == [True, False, True]


def test_no_points_are_no_trouble():
    assert len(keep_best_apart(np.zeros((0, 2)), np.zeros(0), 3.0)) == 0
