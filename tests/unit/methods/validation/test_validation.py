"""Matching of picks, errors of defocus and pose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.rotations import angular_distance, random_rotations
from vitreous.core.symmetry import symmetry_matrices
from vitreous.methods.validation.errors import centre_shifts, defocus_errors, pose_errors
from vitreous.methods.validation.matching import PickCounts, count_picks, match_points


def test_points_are_matched_one_to_one_and_nearest_first() -> None:
    true = np.array([[10.0, 10.0], [50.0, 50.0], [90.0, 20.0]])
    found = np.array([[12.0, 10.0], [10.5, 10.0], [50.0, 54.0], [200.0, 200.0]])
    matches = match_points(found, true, 5.0)
    assert sorted(zip(matches.found.tolist(), matches.true.tolist(), strict=True)) == [(1, 0), (2, 1)]
    assert sorted(matches.distance.tolist()) == [0.5, 4.0]


def test_counts() -> None:
    true = np.array([[10.0, 10.0], [50.0, 50.0], [3.0, 20.0]])
    found = np.array([[10.5, 10.0], [70.0, 54.0], [3.0, 21.0]])
    counts = count_picks(match_points(found, true, 5.0), len(found), true, (100.0, 100.0), 5.0)
    assert counts == PickCounts(found=3, true=3, matched=2, true_inside=2, matched_inside=1)
    total = counts + PickCounts(found=1, true=1, matched=1, true_inside=0, matched_inside=0)
    assert total.recall == 0.75
    assert total.precision == 0.75
    assert total.recall_inside == 0.5


def test_nothing_found() -> None:
    matches = match_points(np.zeros((0, 2)), np.array([[1.0, 1.0]]), 5.0)
    assert len(matches) == 0
    assert np.isnan(count_picks(matches, 0, np.array([[1.0, 1.0]]), (9.0, 9.0), 0.0).precision)


def test_defocus_errors() -> None:
    true = np.array([[10000.0, 9000.0, 89.0], [12000.0, 11900.0, 0.0]])
    found = np.array([[10030.0, 9010.0, -89.0], [11980.0, 11900.0, 60.0]])
    errors = defocus_errors(found, true)
    assert errors.defocus_rms == pytest.approx(np.sqrt((20.0**2 + 10.0**2) / 2))
    assert errors.axes_rms == pytest.approx(np.sqrt((30.0**2 + 10.0**2 + 20.0**2) / 4))
    assert errors.astigmatism_rms == pytest.approx(20.0)
    assert errors.angle_max == pytest.approx(2.0)  # across the wrap, and only where there is astigmatism


def project_points(points: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    return (poses @ points.T).transpose(1, 2)[..., :2]


@pytest.mark.parametrize("mirrored", [False, True])
def test_poses_about_a_turned_or_mirrored_map(generator: torch.Generator, mirrored: bool) -> None:
    """Poses that give the same images have no error, whatever axes, hand and mate the found map has."""
    true = random_rotations(20, generator)
    rotation = random_rotations(1, generator)[0]
    flip = torch.diag(torch.tensor([1.0, 1.0, -1.0 if mirrored else 1.0], dtype=torch.float64))
    to_truth = rotation @ flip
    found = flip @ true @ to_truth  # so that flip @ found @ to_truth^T is the true pose
    points = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    same = project_points(points @ to_truth, found)
    torch.testing.assert_close(same, project_points(points, true))
    group = symmetry_matrices("D2")
    mates = group[torch.arange(20) % 4]
    errors = pose_errors(found @ mates, true, to_truth, group)
    assert float(errors.max()) < 1e-5
    wobble = random_rotations(1, generator)[0]
    expected = angular_distance(wobble @ true, true)
    without = pose_errors(flip @ wobble @ flip @ found, true, to_truth, symmetry_matrices("C1"))
    torch.testing.assert_close(without, expected.to(without.dtype), rtol=0.02, atol=1e-3)


def test_centre_of_a_shifted_map() -> None:
    poses = random_rotations(3, torch.Generator().manual_seed(1))
    shift = torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(centre_shifts(poses, shift), project_points(shift[None], poses)[:, 0])
