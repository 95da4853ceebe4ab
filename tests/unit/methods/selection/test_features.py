from __future__ import annotations

import numpy as np
import pytest

from vitreous.methods.selection.features import measure_classes

BOX, PIXEL, DIAMETER = 64, 3.0, 150.0
Y, X = np.mgrid[:BOX, :BOX] - BOX // 2


def disc(radius: float, x: float = 0.0, y: float = 0.0, steepness: float = 2.0) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(steepness * (np.hypot(X - x, Y - y) - radius)))


def measure(*images: np.ndarray):
    count = len(images)
    return measure_classes(np.stack(images), PIXEL, DIAMETER, np.full(count, 1 / count), np.full(count, 10.0))


def test_extent_is_the_discs_diameter_over_the_masks():
    found = measure(disc(8), disc(16))
    np.testing.assert_allclose(found.extent, [8 / 25, 16 / 25], rtol=0.06)
    np.testing.assert_allclose(found.offset, 0.0, atol=0.01)
    np.testing.assert_allclose(found.wholeness, 1.0)


def test_offset_is_the_centres_distance_over_the_radius():
    found = measure(disc(6, x=5, y=0), disc(6, x=-6, y=8))
    np.testing.assert_allclose(found.offset, [5 / 25, 10 / 25], atol=0.02)


def test_wholeness_is_the_largest_pieces_share():
    found = measure(disc(7, x=-10) + disc(7, x=10), disc(9, x=-8) + disc(4.5, x=12))
    assert found.wholeness[0] == pytest.approx(0.5, abs=0.03)
    assert found.wholeness[1] == pytest.approx(0.8, abs=0.06)


def test_scale_and_level_change_contrast_alone():
    rng = np.random.default_rng(0)
    image = disc(12) + 0.05 * rng.normal(size=(BOX, BOX))
    found = measure(image, 7.0 * image + 3.0)
    assert found.contrast[1] == pytest.approx(7.0 * found.contrast[0])
    for name in ("roughness", "offset", "extent", "wholeness", "detail"):
        first, second = getattr(found, name)
        assert second == pytest.approx(first, abs=1e-6)


def test_roughness_is_noise_in_the_ring_over_the_particles_height():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(BOX, BOX))
    found = measure(disc(12) + 0.1 * noise, disc(12) + 0.2 * noise, disc(22, steepness=1.0))
    assert found.roughness[0] == pytest.approx(0.1, rel=0.2)
    assert found.roughness[1] == pytest.approx(0.2, rel=0.25)
    assert found.roughness[2] < 0.05  # a round particle that reaches into the ring


def test_detail_grows_with_fine_structure():
    fine = disc(14) * (1.0 + 0.5 * np.sin(X * 1.2) * np.sin(Y * 1.2))
    found = measure(np.exp(-(X**2 + Y**2) / (2 * 9.0**2)), disc(14), fine)
    assert found.detail[0] < found.detail[1] < found.detail[2]


def test_empty_averages_are_measured_without_trouble():
    found = measure(np.zeros((BOX, BOX)), disc(10))
    for name in ("contrast", "roughness", "offset", "extent", "wholeness", "detail"):
        assert np.isfinite(getattr(found, name)).all()
    assert found.contrast[0] == 0.0
