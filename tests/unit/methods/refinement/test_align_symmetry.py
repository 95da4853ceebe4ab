from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitreous.core.rotations import axis_angle_to_matrix
from vitreous.methods.refinement.align_symmetry import align_to_axes, rotate_density, symmetrise_density

BOX = 32


def _lopsided(generator: torch.Generator) -> Tensor:
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    centres = (torch.rand(5, 3, generator=generator, dtype=torch.float64) - 0.5) * BOX * 0.5
    return sum(
        ((1 + i) * torch.exp(-(grid - centre).square().sum(-1) / 18.0) for i, centre in enumerate(centres)),
        torch.zeros(BOX, BOX, BOX, dtype=torch.float64),
    ).float()


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("symmetry", ["C3", "D2"])
def test_axes_of_a_rotated_map_are_found(symmetry: str, generator: torch.Generator) -> None:
    symmetric = symmetrise_density(_lopsided(generator), symmetry)
    assert _correlation(symmetric, symmetrise_density(symmetric, symmetry)) > 0.99
    tilt = axis_angle_to_matrix(torch.tensor([1.0, 0.7, 0.2], dtype=torch.float64), torch.tensor(50.0))
    turned = rotate_density(symmetric, tilt)
    before = _correlation(turned, symmetrise_density(turned, symmetry))
    assert before < 0.96
    found, agreement = align_to_axes(turned, symmetry, 4.0, 20.0)
    assert agreement > 0.97
    assert _correlation(found, symmetrise_density(found, symmetry)) > 0.98


def test_rotation_moves_density_as_the_matrix_says() -> None:
    """What was at x is afterwards at R x: a quarter turn about z takes +x to +y."""
    density = torch.zeros(16, 16, 16)
    density[8, 8, 12] = 1.0  # x = +4
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(rotate_density(density, quarter)[8, 12, 8]) == pytest.approx(1.0, abs=1e-5)
