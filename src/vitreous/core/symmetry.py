"""Point groups C, D, T, O and I in RELION's axes, and what symmetry does to poses and directions.

A symmetric density looks the same after each rotation S of its group, so the poses A and A S see the same
projection, and so do the viewing directions d and S^T d.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.core.rotations import angular_distance, axis_angle_to_matrix

_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
Generator = tuple[tuple[float, float, float], int]  # axis (x, y, z) and fold
_POLYHEDRAL: dict[str, tuple[Generator, ...]] = {
    "T": (((0, 0, 1), 3), ((0, math.sqrt(2.0), 1), 2)),
    "O": (((0, 0, 1), 4), ((1, 0, 0), 4)),
    "I1": (((0, 1, _GOLDEN), 5), ((0, 0, 1), 2), ((1, 1, 1), 3)),
    "I2": (((0, _GOLDEN, 1), 5), ((0, 0, 1), 2), ((1, 1, 1), 3)),
    "I3": (((0, 0, 1), 5), ((0, 1, 0), 2), ((1, 0, -_GOLDEN), 2)),
    "I4": (((0, 0, 1), 5), ((0, 1, 0), 2), ((1, 0, _GOLDEN), 2)),
}
# Any direction that no group's axis or mirror plane comes near: the asymmetric unit is what lies closer to it than
# to its symmetry mates (a Dirichlet cell), and on a grid of directions no ties arise.
_UNIT_CENTRE = (0.8683, 0.1137, 0.4829)
_TIE = 1e-9


def canonical_name(name: str) -> str:
    """'c4' -> 'C4', 'I' -> 'I2' (RELION's default icosahedral setting). Raises InputError for an unknown group."""
    upper = name.strip().upper()
    if upper == "I":
        return "I2"
    cyclic = re.fullmatch(r"([CD])0*([1-9]\d*)", upper)
    if cyclic:
        return f"{cyclic[1]}{cyclic[2]}"
    if upper in _POLYHEDRAL:
        return upper
    raise InputError("symmetry", f"unknown point group '{name}'", "Use Cn, Dn, T, O, I (= I2), I1, I2, I3 or I4.")


def symmetry_matrices(name: str) -> Float[Tensor, "n 3 3"]:
    """All rotations of a point group, float64, the identity first.

    Axes as RELION prints with `relion_refine --sym NAME --print_symmetry_ops`: main axis on z, D with a 2-fold on x,
    O with 4-folds on x, y, z, T with a 3-fold on z, I1/I2 with 2-folds on x, y, z, I3/I4 with a 5-fold on z.
    """
    return _matrices(canonical_name(name)).clone()


@lru_cache(maxsize=64)
def _matrices(name: str) -> Tensor:
    generators = torch.stack([_turn(axis, fold) for axis, fold in _generators(name)])
    group = torch.eye(3, dtype=torch.float64)[None]
    while True:
        products = torch.cat([group, (group[:, None] @ generators[None]).reshape(-1, 3, 3)])
        bigger = _distinct(products)
        if len(bigger) == len(group):
            return group
        group = bigger


def _generators(name: str) -> tuple[Generator, ...]:
    if name in _POLYHEDRAL:
        return _POLYHEDRAL[name]
    main: Generator = ((0, 0, 1), int(name[1:]))
    return (main,) if name[0] == "C" else (main, ((1, 0, 0), 2))


def _turn(axis: tuple[float, float, float], fold: int) -> Tensor:
    return axis_angle_to_matrix(
        torch.tensor(axis, dtype=torch.float64), torch.tensor(360.0 / fold, dtype=torch.float64)
    )


def _distinct(matrices: Tensor) -> Tensor:
    """The first of each set of equal matrices, in their order."""
    same = (matrices[:, None] - matrices[None]).abs().amax((-2, -1)) < 1e-6
    first = torch.argmax(same.to(torch.int8), 1)
    return matrices[first == torch.arange(len(matrices))]


def order_of(name: str) -> int:
    """Number of rotations in the group."""
    return len(_matrices(canonical_name(name)))


def in_asymmetric_unit(directions: Float[Tensor, "n 3"], name: str) -> Bool[Tensor, "n"]:
    """Which directions (unit vectors x, y, z) lie in the group's asymmetric unit.

    Of every orbit of directions exactly one is in it.
    """
    group = _matrices(canonical_name(name)).to(directions)
    centre = torch.tensor(_UNIT_CENTRE, dtype=directions.dtype, device=directions.device)
    nearness = directions @ (group @ centre).T  # (n, group): nearness of S^T d to the centre
    return nearness[:, 0] >= nearness.amax(1) - _TIE


def reduce_to_asymmetric_unit(rotations: Float[Tensor, "n 3 3"], name: str) -> Float[Tensor, "n 3 3"]:
    """Replace each pose by its equivalent whose viewing direction lies in the asymmetric unit."""
    group = _matrices(canonical_name(name)).to(rotations)
    centre = torch.tensor(_UNIT_CENTRE, dtype=rotations.dtype, device=rotations.device)
    nearness = rotations[:, 2] @ (group @ centre).T
    return rotations @ group[nearness.argmax(1)]


def nearest_equivalent(
    rotations: Float[Tensor, "n 3 3"], targets: Float[Tensor, "n 3 3"], name: str
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n"]]:
    """Of all poses equivalent to each rotation the one nearest to its target, and their distance in degrees."""
    group = _matrices(canonical_name(name)).to(rotations)
    mates = rotations[:, None] @ group[None]
    distances = angular_distance(mates, targets[:, None].expand_as(mates))
    best: Int[Tensor, "n"] = distances.argmin(1)
    rows = torch.arange(len(rotations), device=rotations.device)
    return mates[rows, best], distances[rows, best]


def symmetric_distance(a: Float[Tensor, "n 3 3"], b: Float[Tensor, "n 3 3"], name: str) -> Float[Tensor, "n"]:
    """Angle in degrees between poses a and b, modulo the symmetry."""
    return nearest_equivalent(a, b, name)[1]
