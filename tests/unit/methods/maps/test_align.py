"""A map that was turned, moved and mirrored by known amounts is brought back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitreous.core.fsc import fsc
from vitreous.core.rotations import angular_distance, random_rotations
from vitreous.core.symmetry import symmetry_matrices
from vitreous.data.volume import Volume
from vitreous.methods.maps.align import align_map, apply_alignment, small_rotation
from vitreous.methods.maps.fourier_sampling import half_ball, sampled_transform

BOX, VOXEL = 48, 3.0
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


def blobs(generator: torch.Generator, n: int = 40, symmetry: str = "C1") -> Tensor:
    """Centres (n, 3) in A of Gaussian atoms without symmetry or hand of their own, repeated by a point group."""
    points = torch.randn(n, 3, generator=generator, dtype=torch.float64) * torch.tensor([15.0, 12.0, 20.0]) + 6.0
    return torch.cat([points @ operator.T for operator in symmetry_matrices(symmetry)])


def density(centres: Tensor, box: int = BOX, voxel: float = VOXEL, width: float = 4.0) -> Volume:
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) * voxel
    factors = [torch.exp(-0.5 * ((axis[None] - centres[:, i, None]) / width) ** 2) for i in range(3)]
    return Volume(torch.einsum("nz,ny,nx->zyx", factors[2], factors[1], factors[0]).float(), voxel)


@pytest.mark.parametrize("mirrored", [False, True])
def test_known_transform_is_found(generator: torch.Generator, mirrored: bool) -> None:
    centres = blobs(generator)
    rotation = random_rotations(1, generator)[0]
    shift = torch.tensor([5.3, -7.1, 3.9], dtype=torch.float64)
    matrix = rotation @ MIRROR if mirrored else rotation
    # The map that M p + shift brings onto the reference.
    moving = density((centres - shift) @ matrix)
    noise = 0.3 * moving.density.std() * torch.randn(BOX, BOX, BOX, generator=generator)
    reference = density(centres)
    found = align_map(Volume(moving.density + noise, VOXEL), reference)
    assert found.mirrored == mirrored
    assert float(angular_distance(found.rotation, rotation)) < 0.5
    assert float((found.shift - shift).abs().max()) < 0.1 * VOXEL
    assert found.correlation > found.other_hand + 0.1
    aligned = apply_alignment(moving, found, reference)
    assert float(fsc(aligned.density.double(), reference.density.double())[1:12].min()) > 0.99


def test_other_box_and_voxel_size(generator: torch.Generator) -> None:
    centres = blobs(generator)
    rotation = random_rotations(1, generator)[0]
    moving = density(centres @ rotation, box=60, voxel=2.6)
    reference = density(centres)
    found = align_map(moving, reference, hands=(False,))
    assert float(angular_distance(found.rotation, rotation)) < 0.5
    aligned = apply_alignment(moving, found, reference)
    assert aligned.box == BOX
    assert aligned.voxel_size == VOXEL
    scale = float(aligned.density.max() / reference.density.max())
    assert scale == pytest.approx(1.0, abs=0.05)


def test_symmetric_map_with_its_axes_turned(generator: torch.Generator) -> None:
    """Octahedral: 24 answers are right, the hand is not free."""
    centres = blobs(generator, 12, "O")
    rotation = small_rotation(torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64))
    moving = density(centres @ (rotation @ MIRROR))
    # The moving map's own axes are not the standard ones here, so its symmetry cannot shorten the search.
    found = align_map(moving, density(centres))
    assert found.mirrored
    equivalent = symmetry_matrices("O") @ rotation
    assert float(angular_distance(equivalent, found.rotation.expand_as(equivalent)).min()) < 0.5


def test_symmetry_shortens_the_search(generator: torch.Generator) -> None:
    """A map about the standard axes, a reference about others: one of the equivalent answers is found."""
    centres = blobs(generator, 12, "D2")
    rotation = random_rotations(1, generator)[0]
    found = align_map(density(centres), density(centres @ rotation.T), symmetry="D2", hands=(False,))
    equivalent = rotation @ symmetry_matrices("D2")
    assert float(angular_distance(equivalent, found.rotation.expand_as(equivalent)).min()) < 0.5
    assert float(found.shift.abs().max()) < 0.1 * VOXEL


def test_sampling_agrees_with_the_transform_of_gaussians() -> None:
    """The transform of a Gaussian at p is known: (2 pi)^1.5 w^3 exp(-2 pi^2 w^2 k^2) exp(-2 pi i k p)."""
    centre, width = torch.tensor([[9.0, -6.0, 4.5]], dtype=torch.float64), 4.0
    transform = sampled_transform(density(centre, width=width), 0.06)
    frequencies = half_ball(6) / (BOX * VOXEL)
    got = transform(frequencies)
    size = (2 * torch.pi) ** 1.5 * width**3 * torch.exp(-2 * torch.pi**2 * width**2 * frequencies.square().sum(1))
    expected = torch.polar(size, -2 * torch.pi * frequencies @ centre[0])
    assert float((got - expected).abs().max() / size.max()) < 0.02


def test_half_ball_holds_one_of_each_pair() -> None:
    points = half_ball(5)
    assert len(torch.unique(torch.cat([points, -points]), dim=0)) == 2 * len(points)
    assert float(points.norm(dim=1).max()) <= 5.0
