from __future__ import annotations

import pytest
import torch

from vitreous.core import so3
from vitreous.core.rotations import angular_distance, euler_to_matrix, random_rotations
from vitreous.core.symmetry import symmetric_distance


def test_full_grid_has_relions_size_and_step():
    grid = so3.orientation_grid(2)
    assert len(grid) == 12 * 4**2 * 24 == 4608
    assert grid.step == 15.0


def nearest_distance(grid, poses, symmetry):
    rotations = grid.rotations()
    distances = [symmetric_distance(pose.expand_as(rotations), rotations, symmetry).min() for pose in poses]
    return float(torch.stack(distances).max())


@pytest.mark.parametrize("symmetry", ["C1", "D2", "T", "O", "I1"])
def test_reduced_grid_covers_all_poses(symmetry, generator):
    perturbation = so3.random_perturbation(2, generator)
    grid = so3.orientation_grid(2, symmetry, perturbation)
    poses = random_rotations(100, generator)
    # In-plane half step 7.5 degrees and a direction at most 10.3 (HEALPix, n_side 4) from a pixel's centre; at the
    # edge of an asymmetric unit, whose mate the grid does not map onto itself, somewhat more.
    assert nearest_distance(grid, poses, symmetry) < (13.0 if symmetry == "C1" else 16.0)


def test_reduced_grid_is_smaller_by_the_group():
    assert len(so3.orientation_grid(3, "O")) == pytest.approx(len(so3.orientation_grid(3)) / 24, rel=0.06)


def test_children_are_close_and_distinct(generator):
    grid = so3.orientation_grid(1, perturbation=so3.random_perturbation(1, generator))
    children, finer = grid.children(), grid.finer()
    assert children.shape == (len(grid), 8)
    assert torch.equal(children.reshape(-1).sort().values, torch.arange(len(so3.orientation_grid(2))))
    parents = grid.rotations()[:, None].expand(-1, 8, -1, -1)
    distance = angular_distance(finer.rotations().reshape(-1, 8, 3, 3), parents)
    assert float(distance.max()) < 0.8 * grid.step


def test_perturbation_is_bounded(generator):
    identity = torch.eye(3, dtype=torch.float64)
    angles = torch.stack([angular_distance(so3.random_perturbation(2, generator), identity) for _ in range(50)])
    assert 2.0 < float(angles.mean()) < 7.5 * 3**0.5
    assert float(angles.max()) <= 7.5 * 3**0.5
    assert torch.equal(so3.random_perturbation(2, generator, 0.0), identity)


def test_eulers_give_the_rotations(generator):
    grid = so3.orientation_grid(1, perturbation=so3.random_perturbation(1, generator))
    assert torch.allclose(euler_to_matrix(*grid.eulers().unbind(-1)), grid.rotations())


def test_neighbourhoods_hold_what_is_near(generator):
    order, sigma = 4, 3.0
    perturbation = so3.random_perturbation(order, generator)
    poles = euler_to_matrix(*torch.tensor([[10.0, 0.5, 20.0], [50.0, 179.0, 3.0]], dtype=torch.float64).unbind(-1))
    poses = torch.cat([random_rotations(10, generator), poles])
    near = so3.neighbourhoods(order, poses, sigma, perturbation)
    grid = so3.orientation_grid(order, perturbation=perturbation)
    for i, pose in enumerate(poses):
        mine = slice(int(near.starts[i]), int(near.starts[i + 1]))
        rotations = grid.rotations(near.orientations[mine])
        distance = angular_distance(rotations, pose.expand_as(rotations))
        everything = angular_distance(grid.rotations(), pose.expand(len(grid), 3, 3))
        within = torch.nonzero(everything < 2.9 * sigma)[:, 0]
        assert set(within.tolist()) <= set(near.orientations[mine].tolist())
        assert float(distance.max()) < 3 * sigma * 2**0.5 + 0.1
        # The prior is Gaussian in the rotation's angle, to second order.
        assert torch.allclose(near.log_prior[mine], -0.5 * (distance / sigma) ** 2, atol=0.05)


def test_neighbourhood_is_never_empty(generator):
    near = so3.neighbourhoods(1, random_rotations(20, generator), 0.01)
    assert int((near.starts[1:] - near.starts[:-1]).min()) >= 1
