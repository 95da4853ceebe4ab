from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vitreous.data.motion import (
    Motion,
    accumulated_motion,
    displacement,
    field_displacement,
    grid_points,
    local_field,
    local_shift,
    motion_error,
    nearest_polynomial,
    polynomial_error,
)

SHAPE = (200, 400)


def motion(rng: np.random.Generator) -> Motion:
    shifts = np.vstack([[0.0, 0.0], rng.normal(size=(4, 2)).cumsum(0)])
    return Motion(SHAPE, shifts, rng.normal(size=(2, 18)) * 0.1)


def test_the_model_is_relions_polynomial():
    m = motion(np.random.default_rng(0))
    x, y, t = 300.0, 20.0, 3
    u, v = x / 400 - 0.5, y / 200 - 0.5
    space = [1, u, u * u, v, v * v, u * v]
    for axis in range(2):
        wanted = sum(m.coefficients[axis, 3 * s + j] * space[s] * t ** (j + 1) for s in range(6) for j in range(3))
        assert local_shift(m, t, x, y)[axis] == pytest.approx(wanted)
    assert np.allclose(displacement(m, t, x, y), -(m.global_shifts[t] + local_shift(m, t, x, y)))


def test_nothing_has_moved_in_the_first_frame():
    m = motion(np.random.default_rng(1))
    assert np.allclose(field_displacement(m, grid_points(SHAPE))[0], 0.0)


def test_the_error_knows_no_constant_offset():
    rng = np.random.default_rng(2)
    points = grid_points(SHAPE)
    m = motion(rng)
    true = field_displacement(m, points)
    assert motion_error(m, true + np.array([3.0, -8.0]), points)[0] == pytest.approx(0.0, abs=1e-12)
    noise = rng.normal(size=true.shape) * 0.3
    pixels, angstrom = motion_error(m, true + noise, points, pixel_size=1.5)
    assert pixels == pytest.approx(0.3 * np.sqrt(2), rel=0.1)
    assert angstrom == pytest.approx(1.5 * pixels)


def test_an_error_in_one_place_only_is_seen():
    m = motion(np.random.default_rng(3))
    points = grid_points(SHAPE, 2)
    true = field_displacement(m, points)
    true[:, 0] += np.arange(5)[:, None]
    assert motion_error(m, true, points)[0] > 0.5


def test_a_model_by_frame_is_read_where_it_stands():
    rng = np.random.default_rng(4)
    by_frame = rng.normal(size=(5, 2, 6))
    m = replace(motion(rng), local_by_frame=by_frame)
    u, v = 300.0 / 400 - 0.5, 20.0 / 200 - 0.5
    wanted = by_frame[3] @ [1, u, u * u, v, v * v, u * v]
    assert np.allclose(local_shift(m, 3, 300.0, 20.0), wanted)
    assert np.allclose(field_displacement(m, [[300.0, 20.0]])[3, 0], -(m.global_shifts[3] + wanted))


def test_the_nearest_polynomial_of_a_polynomial_is_itself():
    m = motion(np.random.default_rng(5))
    by_frame = local_field(m, np.arange(5))
    assert by_frame.shape == (5, 2, 6)
    assert np.allclose(nearest_polynomial(by_frame), m.coefficients)
    same = replace(m, local_by_frame=by_frame)
    assert polynomial_error(same) == pytest.approx(0.0, abs=1e-12)


def test_no_other_polynomial_is_nearer():
    rng = np.random.default_rng(6)
    by_frame = rng.normal(size=(9, 2, 6)).cumsum(0)
    best = nearest_polynomial(by_frame)
    points = grid_points(SHAPE)
    whole = replace(Motion(SHAPE, np.zeros((9, 2))), local_by_frame=by_frame)

    def far(coefficients):
        other = Motion(SHAPE, np.zeros((9, 2)), coefficients)
        return np.sum((field_displacement(whole, points) - field_displacement(other, points)) ** 2)

    for _ in range(20):
        assert far(best + 1e-3 * rng.normal(size=best.shape)) > far(best)


def test_shapes_must_agree():
    m = motion(np.random.default_rng(3))
    with pytest.raises(ValueError, match="shapes"):
        motion_error(m, np.zeros((2, 4, 2)), grid_points(SHAPE, 2))


def test_accumulated_motion_splits_at_four_electrons():
    shifts = np.array([[0, 0], [3, 4], [3, 5], [3, 7], [3, 7.5]], dtype=float)
    # 1.277 e/A^2 a frame: three frames are within 4 e/A^2, as RELION counts them
    got = accumulated_motion(Motion((10, 10), shifts), 2.0, 1.277)
    assert (got.total, got.early, got.late) == pytest.approx((17.0, 12.0, 5.0))
