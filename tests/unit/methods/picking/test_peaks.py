from __future__ import annotations

import numpy as np
import pytest

from vitreous.methods.picking.peaks import local_maxima, refine_maxima, suppress_neighbours


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
    np.testing.assert_array_equal(suppress_neighbours(points, scores, distance), greedy(points, scores, distance))


def test_a_point_in_the_shadow_of_a_dropped_one_stays():
    points = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 6.0]])
    assert suppress_neighbours(points, np.array([3.0, 2.0, 1.0]), 4.0).tolist() == [True, False, True]


def test_refinement_finds_the_vertex_of_a_paraboloid():
    y, x = np.mgrid[:40, :50].astype(float)
    scores = 5 - 0.2 * (y - 17.3) ** 2 - 0.1 * (x - 30.6) ** 2
    peaks = local_maxima(scores, np.ones(scores.shape, dtype=bool))
    assert len(peaks) == 1
    np.testing.assert_allclose(refine_maxima(scores, peaks)[0], [17.3, 30.6], atol=1e-9)


def test_maxima_come_best_first_and_only_where_allowed():
    scores = np.zeros((30, 30))
    scores[5, 5], scores[20, 20], scores[20, 5] = 2.0, 3.0, 4.0
    allowed = scores > 0
    allowed[20, 5] = False
    assert local_maxima(scores, allowed).tolist() == [[20, 20], [5, 5]]


def test_no_points_are_no_trouble():
    assert len(suppress_neighbours(np.zeros((0, 2)), np.zeros(0), 3.0)) == 0
