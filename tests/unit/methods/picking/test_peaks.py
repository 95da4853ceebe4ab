from __future__ import annotations

import numpy as np

from vitreous.methods.picking.peaks import local_maxima, refine_maxima, roundness


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


def test_roundness_is_the_ratio_of_curvatures():
    y, x = np.mgrid[:60, :60] - 30.0
    middle = np.array([[30.0, 30.0]])
    for angle in (0.0, 0.5, 2.0):
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        assert roundness(-(u**2 + v**2), middle, 5.0)[0] > 0.97
        np.testing.assert_allclose(roundness(-(u**2 + 0.3 * v**2), middle, 5.0), 0.3, atol=0.03)
        assert abs(roundness(-(u**2), middle, 5.0)[0]) < 0.03
    assert roundness(np.zeros((60, 60)), middle, 5.0)[0] == 0.0
