"""Which patches do not move with the others."""

from __future__ import annotations

import numpy as np
import pytest

from vitreous.data.motion import grid_points, space_basis
from vitreous.methods.motion.outlying_patches import outlying_patches

SHAPE, N_FRAMES = (800, 1000), 10


def tracks(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Quadratic motion of n x n patches that grows with time, with noise that is smooth in time."""
    rng = np.random.default_rng(seed)
    centres = grid_points(SHAPE, n)
    surface = space_basis(centres[:, 0], centres[:, 1], SHAPE) @ rng.normal(0, 6.0, (6, 2))
    time = np.linspace(0, 1, N_FRAMES)[None, :, None]
    wander = rng.normal(0, noise, (n * n, 1, 2)) * time + rng.normal(0, noise, (n * n, 1, 2)) * time**2
    return surface[:, None] * time + wander, centres


@pytest.mark.parametrize("n", [4, 5])
@pytest.mark.parametrize("which", [0, 6, 3])
def test_one_that_goes_its_own_way_is_found_wherever_it_is(n: int, which: int) -> None:
    moved, centres = tracks(n, 0.15, seed=which)
    moved[which] += np.linspace(0, 1, N_FRAMES)[:, None] * [4.0, -3.0]
    assert np.flatnonzero(outlying_patches(moved, centres, SHAPE)).tolist() == [which]


def test_two_neighbours() -> None:
    moved, centres = tracks(5, 0.15, seed=9)
    moved[[0, 1]] += np.linspace(0, 1, N_FRAMES)[:, None] * [5.0, 5.0]
    assert np.flatnonzero(outlying_patches(moved, centres, SHAPE)).tolist() == [0, 1]


def test_false_alarms_are_rare_and_small_deviations_let_be() -> None:
    alarms = sum(outlying_patches(*tracks(5, 1.0, seed), SHAPE).any() for seed in range(300))
    assert alarms <= 6  # noise as large as the least distance
    moved, centres = tracks(5, 0.02, seed=1)
    moved[12] += 0.3 * np.linspace(0, 1, N_FRAMES)[:, None]
    assert not outlying_patches(moved, centres, SHAPE).any()


def test_where_half_disagree_or_there_are_few_none_is_named() -> None:
    moved, centres = tracks(5, 0.1, seed=3)
    moved[::2] += np.linspace(0, 1, N_FRAMES)[:, None] * [5.0, 5.0]
    assert not outlying_patches(moved, centres, SHAPE).any()
    moved, centres = tracks(2, 0.1, seed=3)
    assert not outlying_patches(moved, centres, SHAPE).any()
