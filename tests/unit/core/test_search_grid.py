"""Grids of a search: the counts that are known, coverage of the asymmetric unit, limits, twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.core.rotations import euler_to_matrix, random_rotations
from vitreous.core.search_grid import (
    AngleLimits,
    healpix_directions,
    in_plane_angles,
    pair_twins,
    ring_directions,
    search_orientations,
    symmetry_rectangle,
)
from vitreous.core.sphere import angles_to_direction
from vitreous.core.symmetry import symmetry_matrices


def test_default_steps_give_the_known_number() -> None:
    """Leopard-EM lists 1,584,480 and 793,920 for C1 and C2: 480 of them twice (phi = 0 and 360 in two rings)."""
    assert len(ring_directions(2.5)) * len(in_plane_angles(1.5)) == 1_584_480 - 480


@pytest.mark.parametrize(("group", "count"), [("C2", 793_920 - 480), ("D7", 115_920), ("T", 176_400), ("O", 88_320),
                                              ("I", 67_200)])  # fmt: skip
def test_rectangles_of_angles_are_leopards(group: str, count: int) -> None:
    assert len(ring_directions(2.5, symmetry_rectangle(group))) * 240 == count


@pytest.mark.parametrize("group", ["C2", "C7", "D7", "T", "O", "I1", "I2"])
def test_the_asymmetric_unit_is_covered_once(group: str) -> None:
    """Leopard-EM's rectangle for I holds 2.5 times too many; ours is the whole divided by the order."""
    matrices = symmetry_matrices(group)
    whole, unit = len(ring_directions(2.5)), len(search_orientations(360.0, 2.5, group))
    assert unit == pytest.approx(whole / len(matrices), rel=0.15)
    angles = search_orientations(360.0, 2.5, group)
    directions = angles_to_direction(angles[:, 0], angles[:, 1])
    views = random_rotations(300, torch.Generator().manual_seed(3))[:, 2]
    mates = torch.einsum("nj,sji->nsi", views, matrices)
    nearest = (mates @ directions.T).clamp(-1, 1).amax((1, 2))
    assert math.degrees(math.acos(float(nearest.min()))) < 2.5


def test_healpix_is_as_fine_as_asked() -> None:
    assert len(healpix_directions(2.5)) == 12 * 4**5  # 1.83 degrees; order 4 would be 3.66
    assert len(healpix_directions(3.7)) == 12 * 4**4


def test_limits_bound_the_search() -> None:
    limits = AngleLimits((10.0, 50.0), (20.0, 60.0), (0.0, 90.0))
    for method in ("uniform", "healpix"):
        angles = search_orientations(5.0, 5.0, method=method, limits=limits)  # type: ignore[arg-type]
        assert len(angles) > 100
        assert float(angles[:, 0].min()) >= 10.0 and float(angles[:, 0].max()) <= 50.0
        assert float(angles[:, 1].min()) >= 20.0 and float(angles[:, 1].max()) <= 60.0
        assert float(angles[:, 2].min()) >= 0.0 and float(angles[:, 2].max()) < 90.0
    with pytest.raises(InputError):
        search_orientations(5.0, 60.0, method="healpix", limits=AngleLimits((0.0, 0.1), (0.1, 0.2)))


def test_every_orientation_is_searched_once() -> None:
    angles = search_orientations(30.0, 30.0)
    first, twins = pair_twins(angles)
    assert sorted([*first, *twins[twins >= 0]]) == list(range(len(angles)))
    assert len(first) == len(angles) // 2
    shift = torch.remainder(angles[twins, 2] - angles[first, 2], 360.0)
    assert bool((shift - 180.0).abs().max() < 1e-9)
    np.testing.assert_array_equal(angles[first, :2], angles[twins, :2])


def test_orientations_without_twin_stand_alone() -> None:
    angles = torch.cat(
        [search_orientations(360.0 / 7, 45.0), torch.tensor([[1.0, 2.0, 359.9999999], [1.0, 2.0, 180.0]])]
    )
    first, twins = pair_twins(angles)
    assert sorted([*first, *twins[twins >= 0]]) == list(range(len(angles)))
    assert int((twins >= 0).sum()) == 1


def test_slices_are_read_along_rz_ry_rz() -> None:
    """Leopard-EM's sense: R = Rz(phi) Ry(theta) Rz(psi), R (x, y, 0); ours reads at the transpose of the pose."""
    phi, theta, psi = (torch.tensor(a, dtype=torch.float64) for a in (20.0, 50.0, 80.0))

    def rz(angle: torch.Tensor) -> torch.Tensor:
        c, s = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
        return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)

    c, s = torch.cos(torch.deg2rad(theta)), torch.sin(torch.deg2rad(theta))
    ry = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
    torch.testing.assert_close(euler_to_matrix(phi, theta, psi).T, rz(phi) @ ry @ rz(psi))
