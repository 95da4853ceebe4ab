from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from vitreous.core.fourier import to_fourier
from vitreous.core.symmetry import symmetry_matrices
from vitreous.methods.simulation.ferritin import ferritin, ferritin_subunit, subunit_backbone
from vitreous.methods.simulation.helix import helix_backbone, ideal_helix, wind
from vitreous.methods.simulation.potential import Projector, potential_map


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def test_ideal_helix_is_alpha_and_right_handed():
    helix = ideal_helix()
    assert np.degrees(helix.turn) == pytest.approx(100, abs=1.5)
    assert helix.rise == pytest.approx(1.5, abs=0.07)
    backbone = helix_backbone(12, 0.0)
    # The hydrogen bond O(i) .. N(i+4) that makes the alpha helix, and L amino acids (CORN rule).
    assert np.linalg.norm(backbone[0, 3] - backbone[4, 0]) == pytest.approx(3.0, abs=0.2)
    n, ca, c, _, cb = backbone[5]
    assert np.dot(np.cross(n - ca, c - ca), cb - ca) > 0


def test_winding_keeps_the_peptide_bonds():
    wound = wind(helix_backbone(28, 180.0, -150.0), 7.6, 30.0, -150.0)
    bonds = np.linalg.norm(wound[1:, 0] - wound[:-1, 2], axis=1)
    assert np.abs(bonds - 1.329).max() < 0.04


def test_size_and_composition():
    model = ferritin()
    radius = np.linalg.norm(model.positions, axis=1)
    assert len(model) == 24 * len(ferritin_subunit())
    assert 25_000 < len(model) < 33_000
    # Horse apoferritin: radius of gyration 52-53 A by small-angle scattering, outer diameter 120-130 A.
    assert np.sqrt((radius**2).mean()) == pytest.approx(53, abs=2)
    assert np.percentile(radius, 2) > 33
    assert radius.max() < 70


def test_no_clashes():
    model = ferritin()
    nearest = cKDTree(model.positions).query(model.positions, k=2)[0][:, 1]
    assert nearest.min() > 1.2  # the shortest bond, C=O
    subunit = ferritin_subunit().positions
    for matrix in symmetry_matrices("O").numpy()[1:]:
        assert cKDTree(subunit @ matrix.T).query(subunit)[0].min() > 3.0


def test_helices_of_the_bundle_are_ten_angstrom_apart():
    subunit = subunit_backbone()
    middles = [subunit.backbone[subunit.helix == h][11:18, 1].mean(0) for h in range(4)]
    neighbours = [np.linalg.norm(middles[i] - middles[(i + 1) % 4]) for i in range(4)]
    assert np.all(np.abs(np.array(neighbours) - 10.5) < 1.0)


def test_map_has_octahedral_symmetry_and_a_hand():
    model = ferritin()
    reference = potential_map(model, 64, 2.5)
    for index in (3, 11, 20):
        turned = potential_map(model.moved(symmetry_matrices("O")[index].numpy()), 64, 2.5)
        assert correlation(reference.density, turned.density) > 0.999
    # Neither a rotation that is not in the group nor the mirror image fits, at 6 A and finer.
    band = (to_fourier(reference.density, 3).abs() >= 0) & (_radius(64, 2.5) > 1 / 10) & (_radius(64, 2.5) < 1 / 6)
    mirrored = model.moved(np.diag([1.0, 1.0, -1.0]))
    a = to_fourier(reference.density, 3)[band]
    b = to_fourier(potential_map(mirrored, 64, 2.5).density, 3)[band]
    assert ((a * b.conj()).real.sum() / (a.abs() * b.abs()).sum()).item() < 0.5


def _radius(box, voxel):
    from vitreous.core.fourier import radius_grid

    return radius_grid((box, box, box), voxel)


def test_projections_down_a_fourfold_repeat_every_quarter_turn():
    projector = Projector(ferritin(), 64, 2.5)
    matrices = symmetry_matrices("O")
    about_z = matrices[[bool(m[2, 2] > 0.99) for m in matrices]]
    images = projector(about_z)
    assert len(about_z) == 4
    for image in images[1:]:
        assert correlation(images[0], image) > 0.999
