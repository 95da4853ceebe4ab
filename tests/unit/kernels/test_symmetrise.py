from __future__ import annotations

import pytest
import torch

from vitreous.core.rotations import random_rotations
from vitreous.core.symmetry import symmetry_matrices
from vitreous.kernels import backproject as bp
from vitreous.kernels import symmetrise as sy
from vitreous.kernels.project import reference as project_reference
from vitreous.kernels.project.prepared import ProjectableVolume

BOX, RADIUS = 16, 6


def hermitian_accumulator(dtype, generator):
    acc = bp.empty_volume(BOX, 2, RADIUS, dtype=dtype)
    acc.data = torch.randn(acc.data.shape, generator=generator, dtype=acc.data.dtype)
    acc.weight = torch.rand(acc.weight.shape, generator=generator, dtype=dtype)
    acc.data[:, :, 0] += acc.data[:, :, 0].flip((0, 1)).conj()
    acc.weight[:, :, 0] += acc.weight[:, :, 0].flip((0, 1))
    return acc


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["C1", "C3", "C4", "D2", "D5", "T", "O", "I1", "I3"])
def test_sum_over_the_group(name, dtype, generator):
    """Against the definition: every rotation of the group interpolated by itself."""
    group = symmetry_matrices(name)
    acc = hermitian_accumulator(torch.float64, generator)
    by_hand = [sy.reference.turned(acc, rotation) for rotation in group]
    ours = bp.VolumeAccumulator(acc.data.clone(), acc.weight.clone(), BOX, 2, RADIUS)
    if dtype == torch.float32:
        ours.data, ours.weight = ours.data.to(torch.complex64), ours.weight.to(torch.float32)
    sy.symmetrise(ours, group)
    size, centre = acc.data.shape[0], acc.centre
    z, y, x = torch.meshgrid(*(torch.arange(size) - centre,) * 3, indexing="ij")
    inside = (x**2 + y**2 + z**2 <= (2 * RADIUS - 2) ** 2)[:, :, centre:]
    data, weight = sum(d for d, _ in by_hand), sum(w for _, w in by_hand)
    assert torch.allclose(ours.data[inside].to(torch.complex128), data[inside], atol=1e-4 * len(group))
    assert torch.allclose(ours.weight[inside].to(torch.float64), weight[inside], atol=1e-4 * len(group))


@pytest.mark.parametrize("name", ["D2", "O"])
def test_symmetric_poses_see_the_same(name, generator):
    group = symmetry_matrices(name)
    acc = hermitian_accumulator(torch.float64, generator)
    sy.symmetrise(acc, group)
    pose = random_rotations(1, generator)
    coordinates = torch.tensor([[1.0, 2.0], [3.0, 0.0], [-4.0, 1.0]], dtype=torch.float64)
    volume = ProjectableVolume(acc.data, BOX, 2, RADIUS)
    slices = project_reference.project(volume, pose @ group, coordinates)
    assert torch.allclose(slices, slices[:1].expand_as(slices), atol=1e-8)
