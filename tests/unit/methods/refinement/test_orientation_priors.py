"""Limits and priors on orientations: which of a grid are left, how they weigh, and that a search heeds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.rotations import angular_distance, euler_to_matrix, matrix_to_euler, random_rotations
from vitreous.core.so3 import neighbourhoods, orientation_grid
from vitreous.core.symmetry import symmetry_matrices
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions
from vitreous.methods.refinement.auto_sampling import first_schedule, global_sampling, local_samplings
from vitreous.methods.refinement.orientation_priors import OrientationPriors, nearby

STILL = torch.eye(3, dtype=torch.float64)


@pytest.mark.parametrize("limit", [30.0, -30.0])
def test_side_or_top_views_alone(limit: float) -> None:
    """RELION's --limit_tilt: positive for side views, negative for top views (and what lies opposite)."""
    options = AutoRefineOptions("C1", 100.0, healpix_order=2, priors=OrientationPriors(limit_tilt=limit))
    sampling, grid = global_sampling(first_schedule(options, 5), options, STILL, (0.0, 0.0))
    tilt = matrix_to_euler(sampling.rotations)[1]
    folded = torch.minimum(tilt, 180 - tilt)
    assert bool(((folded >= 30) if limit > 0 else (folded <= 30)).all())
    share = len(grid) / len(orientation_grid(2))
    within = 1 - np.cos(np.deg2rad(30))
    assert share == pytest.approx(1 - within if limit > 0 else within, abs=0.05)
    assert len(sampling.fine_rotations) == 8 * len(sampling.rotations)


def lists_of(options: AutoRefineOptions, poses: torch.Tensor) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Each particle's candidate rotations and their log-priors."""
    n = len(poses)
    found: list[tuple[torch.Tensor, np.ndarray]] = [(torch.zeros(0), np.zeros(0))] * n
    everyone = np.arange(n)
    schedule = first_schedule(options, 5)
    for chunk, sampling, candidates in local_samplings(schedule, options, everyone, poses.numpy(), STILL, (0.0, 0.0)):
        for particle in chunk:
            mine = slice(candidates.starts[particle], candidates.starts[particle + 1])
            found[particle] = (sampling.rotations[candidates.rows[mine]], candidates.log_prior[mine])
    return found


def test_priors_on_tilt_and_psi_make_each_particles_list(generator: torch.Generator) -> None:
    n = 150  # more than one chunk
    rng = np.random.default_rng(3)
    tilt, psi = rng.uniform(60, 120, n), rng.uniform(-180, 180, n)
    priors = OrientationPriors(tilt=tilt, psi=psi, sigma_tilt=8.0, sigma_psi=10.0)
    options = AutoRefineOptions("C1", 100.0, healpix_order=2, priors=priors)
    for particle, (rotations, log_prior) in enumerate(lists_of(options, random_rotations(n, generator))):
        _, its_tilt, its_psi = matrix_to_euler(rotations)
        off_tilt = (its_tilt.numpy() - tilt[particle]) / 8.0
        off_psi = (np.mod(its_psi.numpy() - psi[particle] + 180, 360) - 180) / 10.0
        assert np.abs(off_tilt).max() <= 3.0
        assert np.abs(off_psi).max() <= 3.0
        np.testing.assert_allclose(log_prior, -0.5 * (off_tilt**2 + off_psi**2), atol=1e-4)
    # all that the prior allows are there
    _, all_tilt, all_psi = matrix_to_euler(orientation_grid(2).rotations())
    allowed = (all_tilt - tilt[-1]).abs() <= 24.0
    allowed &= (torch.remainder(all_psi - psi[-1] + 180, 360) - 180).abs() <= 30.0
    assert len(rotations) == int(allowed.sum())


def test_a_prior_may_speak_of_a_symmetry_mate() -> None:
    """Seen from the other side, D1's twofold about x makes tilt 150 of tilt 30."""
    pose = euler_to_matrix(*(torch.tensor([a], dtype=torch.float64) for a in (10.0, 150.0, 70.0)))
    mate = matrix_to_euler(pose @ symmetry_matrices("D1")[1])
    priors = OrientationPriors(tilt=mate[1].numpy(), psi=mate[2].numpy(), sigma_tilt=5.0, sigma_psi=5.0)
    near = neighbourhoods(3, pose, 7.5)
    kept = priors.restrict(near, orientation_grid(3, "D1"), np.array([0]), "D1")
    assert len(kept.orientations) > 3
    alone = priors.restrict(near, orientation_grid(3), np.array([0]), "C1")
    assert len(alone.orientations) == 1  # nothing within the prior: the likeliest is kept all the same


def test_local_lists_heed_limits_and_the_spread_asked_for(generator: torch.Generator) -> None:
    poses = random_rotations(40, generator)
    options = AutoRefineOptions("C1", 100.0, healpix_order=3, sigma_ang=5.0)
    for pose, (rotations, log_prior) in zip(poses, lists_of(options, poses), strict=True):
        assert float(angular_distance(rotations, pose[None]).max()) < 3 * 5.0 * 1.5
        assert log_prior.max() > -0.5 * (7.5 / 5.0) ** 2 * 2
    limited = replace(options, priors=OrientationPriors(limit_tilt=45.0))
    for pose, (rotations, _) in zip(poses, lists_of(limited, poses), strict=True):
        tilt = matrix_to_euler(rotations)[1]
        inside = torch.minimum(tilt, 180 - tilt) >= 45.0
        own = float(matrix_to_euler(pose[None])[1])
        if 65 < own < 115:
            assert bool(inside.all())
        if own < 20:
            assert len(rotations) == 1  # none allowed


@pytest.mark.parametrize("symmetry", ["C4", "D2"])
def test_relaxed_symmetry_looks_at_all_mates(symmetry: str, generator: torch.Generator) -> None:
    poses, group = random_rotations(5, generator), symmetry_matrices(symmetry)
    near = nearby(3, poses, 7.5, STILL, symmetry)
    grid = orientation_grid(3)
    for particle, pose in enumerate(poses):
        rotations = grid.rotations(near.orientations[near.starts[particle] : near.starts[particle + 1]])
        for mate in pose @ group:
            distance = angular_distance(rotations, mate[None])
            assert float(distance.min()) < 7.5
            single = neighbourhoods(3, mate[None], 7.5)
            assert int((distance < 7.5).sum()) == int(
                (angular_distance(grid.rotations(single.orientations), mate[None]) < 7.5).sum()
            )
