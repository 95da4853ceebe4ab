from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vitreous.core.fourier import radius_grid, to_fourier
from vitreous.core.rotations import euler_to_matrix, random_rotations
from vitreous.core.scattering import POTENTIAL_PER_FORM_FACTOR, atom_potential, form_factor
from vitreous.data.atoms import Atoms
from vitreous.methods.simulation.potential import Projector, Scattering, factorise, potential_map

BARE = Scattering(hydrogens=False, solvent=False)


def atoms(positions, elements, b_factor=20.0):
    positions = np.asarray(positions, dtype=np.float64)
    n = len(positions)
    return Atoms(positions, np.array(list(elements), dtype=object), np.full(n, b_factor), np.ones(n))


def cloud(n=40, seed=3):
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["C", "N", "O", "S", "P"], n)
    return Atoms(rng.normal(0, 6, (n, 3)), kinds.astype(object), rng.uniform(10, 90, n), rng.uniform(0.5, 1, n))


def test_transform_of_one_atom_is_the_table():
    single = atoms([[0.3, -0.2, 0.45]], ["C"])
    volume = potential_map(single, 48, 1.0, BARE)
    radius = radius_grid((48, 48, 48))
    expected = atom_potential("C", radius.numpy(), solvent=False) * np.exp(-0.25 * 20 * radius.numpy() ** 2)
    measured = to_fourier(volume.density, 3).abs()
    inside = radius < 0.45
    assert torch.allclose(measured[inside].double(), torch.from_numpy(expected)[inside], rtol=0.002)


def test_integral_is_the_sum_of_form_factors_at_zero():
    model = cloud()
    volume = potential_map(model, 48, 1.5, BARE)
    zero = np.zeros(1)
    expected = sum(
        o * POTENTIAL_PER_FORM_FACTOR * form_factor(e, zero)[0]
        for e, o in zip(model.elements, model.occupancies, strict=True)
    )
    assert volume.density.double().sum().item() * 1.5**3 == pytest.approx(expected, rel=1e-3)


def test_atom_in_real_space_is_its_gaussians():
    # 47.878 sum a (4 pi / (b + B))^(3/2) exp(-4 pi^2 r^2 / (b + B)); B 60 puts all of it inside the band.
    import gemmi

    single = atoms([[0.0, 0.0, 0.0]], ["N"], b_factor=60.0)
    volume = potential_map(single, 48, 0.8, BARE)
    table = gemmi.Element("N").c4322
    for steps in (0, 1, 3):
        r = 0.8 * steps
        value = POTENTIAL_PER_FORM_FACTOR * sum(
            a * (4 * math.pi / (b + 60)) ** 1.5 * math.exp(-4 * math.pi**2 * r * r / (b + 60))
            for a, b in zip(table.a, table.b, strict=True)
        )
        assert volume.density[24, 24, 24 + steps].item() == pytest.approx(value, rel=0.01)
        assert volume.density[24 + steps, 24, 24].item() == pytest.approx(value, rel=0.01)


def test_factorisation_reproduces_every_atom():
    model = cloud(200)
    factors = factorise(model, 0.4, Scattering())
    assert factors.basis.shape[0] < 10
    row = 17
    expected = model.occupancies[row] * atom_potential(model.elements[row], factors.k, hydrogens=True)
    expected = expected * np.exp(-0.25 * model.b_factors[row] * factors.k**2)
    assert np.abs(factors.weights[row] @ factors.basis - expected).max() < 0.01 * np.abs(expected).max()


def test_projection_is_the_sum_of_the_map_along_z():
    model = cloud()
    summed = potential_map(model, 48, 1.5).density.sum(0) * 1.5
    projected = Projector(model, 48, 1.5)(torch.eye(3)[None])[0]
    # The soft cut of the map is spherical, that of the projection circular: the slice kz = 0 is the same.
    assert (projected - summed).abs().max() < 1e-4 * summed.abs().max()


def test_projection_at_a_pose_is_the_projection_of_the_rotated_model(generator):
    model = cloud()
    rotation = random_rotations(1, generator)
    rotated = Projector(model.moved(rotation[0].numpy()), 48, 1.5)(torch.eye(3)[None])
    posed = Projector(model, 48, 1.5)(rotation)
    assert (posed - rotated).abs().max() < 1e-4 * rotated.abs().max()


def test_pose_agrees_with_relions_axes():
    # rot = 90: A takes volume x to ... row 0 of A is (0, 1, 0) x volume: the image's x is the volume's y.
    model = atoms([[0.0, 6.0, 0.0]], ["S"])
    image = Projector(model, 32, 1.0)(
        euler_to_matrix(torch.tensor([90.0]), torch.tensor([0.0]), torch.tensor([0.0])).double()
    )[0]
    assert np.unravel_index(int(image.argmax()), (32, 32)) == (16, 22)


def test_offsets_move_the_particle():
    model = atoms([[0.0, 0.0, 0.0]], ["S"])
    image = Projector(model, 32, 1.0)(torch.eye(3)[None], torch.tensor([[3.0, -2.0]]))[0]
    assert np.unravel_index(int(image.argmax()), (32, 32)) == (14, 19)


def test_resolution_cut_empties_the_shells_beyond():
    volume = potential_map(cloud(), 48, 1.0, Scattering(resolution=5.0))
    power = to_fourier(volume.density, 3).abs()
    radius = radius_grid((48, 48, 48))
    assert power[radius > 0.26].max() < 1e-4 * power.max()
    assert power[radius < 0.17].max() > 0.1 * power.max()
