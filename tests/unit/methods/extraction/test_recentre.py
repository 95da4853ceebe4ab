from __future__ import annotations

import numpy as np

from vitreous.methods.extraction.recentre import recentre


def test_position_is_kept_and_the_rest_is_below_half_a_pixel():
    rng = np.random.default_rng(3)
    coordinates, origins = rng.uniform(0, 4000, (200, 2)), rng.normal(0, 12, (200, 2))
    moved, rest = recentre(coordinates, origins, 1.3)
    np.testing.assert_allclose(moved - rest / 1.3, coordinates - origins / 1.3)
    assert np.abs(rest).max() <= 0.65 + 1e-9


def test_whole_pixels_as_relion_takes_them():
    """What `relion_preprocess --recenter` (3.1.3) wrote for these two particles."""
    moved, rest = recentre(np.array([[200.0, 200.0], [200.6, 180.4]]), np.array([[4.0, -2.5], [-3.3, 7.9]]), 1.5)
    np.testing.assert_allclose(moved, [[197, 202], [202.6, 175.4]])
    np.testing.assert_allclose(rest, [[-0.5, 0.5], [-0.3, 0.4]], atol=1e-9)
