from __future__ import annotations

import pytest
import torch

from vitreous.core import symmetry
from vitreous.core.errors import InputError
from vitreous.core.rotations import angular_distance, random_rotations

ORDERS = {
    "C1": 1,
    "c4": 4,
    "C7": 7,
    "D2": 4,
    "D5": 10,
    "T": 12,
    "O": 24,
    "I": 60,
    "I1": 60,
    "I2": 60,
    "I3": 60,
    "I4": 60,
}


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_group(name, order):
    group = symmetry.symmetry_matrices(name)
    assert len(group) == order == symmetry.order_of(name)
    assert torch.equal(group[0], torch.eye(3, dtype=torch.float64))
    assert torch.allclose(torch.linalg.det(group), torch.ones(order, dtype=torch.float64))
    products = (group[:, None] @ group[None]).reshape(-1, 3, 3)
    distance = (products[:, None] - group[None]).abs().amax((-2, -1)).amin(1)
    assert float(distance.max()) < 1e-12  # closed: every product is a member


def has_fold(name, axis, fold):
    """Whether turning by 360/fold about axis is in the group: fixes the axis, trace 1 + 2 cos."""
    group = symmetry.symmetry_matrices(name)
    axis = torch.tensor(axis, dtype=torch.float64)
    axis = axis / axis.norm()
    fixed = (group @ axis - axis).norm(dim=1) < 1e-9
    angle = torch.tensor(2 * torch.pi / fold, dtype=torch.float64)
    trace = torch.einsum("nii->n", group)
    return bool((fixed & ((trace - 1 - 2 * angle.cos()).abs() < 1e-9)).any())


@pytest.mark.parametrize(
    ("name", "axis", "fold"),
    [
        ("C3", (0, 0, 1), 3),
        ("D3", (1, 0, 0), 2),
        ("T", (0, 0, 1), 3),
        ("O", (0, 0, 1), 4),
        ("O", (1, 0, 0), 4),
        ("O", (1, 1, 1), 3),
        ("I1", (0, 0, 1), 2),
        ("I1", (0, 0.525731, 0.850651), 5),
        ("I2", (0, 0.850651, 0.525731), 5),
        ("I3", (0, 0, 1), 5),
        ("I4", (0, 0, 1), 5),
    ],
)
def test_axes(name, axis, fold):
    if name in ("I1", "I2") and fold == 5:
        golden = (1 + 5**0.5) / 2
        axis = (0, 1, golden) if name == "I1" else (0, golden, 1)
    assert has_fold(name, axis, fold)


@pytest.mark.parametrize("name", ["C1", "C5", "D2", "D7", "T", "O", "I1", "I2", "I3", "I4"])
def test_one_direction_of_each_orbit(name, generator):
    directions = random_rotations(50, generator)[:, 2]
    group = symmetry.symmetry_matrices(name)
    orbit = torch.einsum("sji,nj->nsi", group, directions)
    inside = symmetry.in_asymmetric_unit(orbit.reshape(-1, 3), name).reshape(50, -1)
    assert torch.equal(inside.sum(1), torch.ones(50, dtype=torch.int64))


def test_reduction_keeps_the_orbit(generator):
    poses = random_rotations(30, generator)
    reduced = symmetry.reduce_to_asymmetric_unit(poses, "O")
    assert bool(symmetry.in_asymmetric_unit(reduced[:, 2], "O").all())
    assert float(symmetry.symmetric_distance(poses, reduced, "O").max()) < 1e-6


def test_distance_modulo_symmetry(generator):
    poses, others = random_rotations(20, generator), random_rotations(20, generator)
    group = symmetry.symmetry_matrices("D2")
    distance = symmetry.symmetric_distance(poses, others, "D2")
    assert torch.allclose(symmetry.symmetric_distance(poses @ group[2], others, "D2"), distance)
    by_hand = torch.stack([angular_distance(poses @ s, others) for s in group]).amin(0)
    assert torch.allclose(distance, by_hand)


@pytest.mark.parametrize("name", ["", "X3", "C0", "D", "I5", "Oh"])
def test_unknown_group(name):
    with pytest.raises(InputError, match="point group"):
        symmetry.canonical_name(name)
