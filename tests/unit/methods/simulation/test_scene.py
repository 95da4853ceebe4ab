from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from vitreous.methods.simulation.contamination import Dirt, scatter_dirt
from vitreous.methods.simulation.scene import (
    Crowd,
    Scene,
    preferred_rotations,
    random_positions,
    random_scene,
    uniform_rotations,
)


def test_positions_keep_their_distance_and_the_border():
    points = random_positions((300, 500), 80, 40.0, 25.0, np.random.default_rng(1))
    assert len(points) > 50
    assert pdist(points).min() >= 40.0
    assert points.min() >= 25.0
    assert points[:, 0].max() <= 499 - 25
    assert points[:, 1].max() <= 299 - 25
    assert points[:, 0].max() > 300  # x runs along the long axis


def test_no_room_gives_none():
    assert len(random_positions((40, 40), 5, 10.0, 30.0, np.random.default_rng(1))) == 0


def test_uniform_rotations_have_no_mean_direction():
    views = uniform_rotations(4000, np.random.default_rng(2))[:, 2]
    assert views.mean(0).norm() < 0.05
    # Isotropic: the second moment is a third of the identity.
    assert (views.T @ views / 4000 - torch.eye(3) / 3).abs().max() < 0.03


def test_preferred_views_lie_about_their_axis_as_von_mises_fisher_says():
    rng = np.random.default_rng(3)
    rotations = preferred_rotations(4000, (30.0, 60.0), 8.0, rng)
    axis = torch.tensor([np.sin(np.radians(60)) * np.cos(np.radians(30)), np.sin(np.radians(60)) * 0.5, 0.5])
    cosine = rotations[:, 2] @ axis.double()
    expected = 1 / np.tanh(8.0) - 1 / 8.0  # mean cosine: coth(kappa) - 1/kappa
    assert abs(cosine.mean().item() - expected) < 0.01
    identity = rotations @ rotations.transpose(1, 2)
    assert (identity - torch.eye(3)).abs().max() < 1e-12


def test_scene_is_reproducible_and_heights_fit_the_ice():
    crowd = Crowd(30, 60.0, 40.0, ice_thickness=400.0, diameter=120.0, height_step=20.0)
    one, two = (random_scene((400, 400), 2.0, crowd, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one.coordinates, two.coordinates)
    assert torch.equal(one.rotations, two.rotations)
    assert np.abs(one.heights).max() <= 140
    assert np.allclose(one.heights % 20.0, 0)
    assert len(np.unique(one.heights)) > 3


def test_dirt_covers_what_it_should_and_takes_its_particles_along() -> None:
    field = scatter_dirt((300, 400), 3.0, Dirt(carbon=0.3), np.random.default_rng(1))
    assert field.covered.shape == (300, 400)
    assert field.covered.mean() == pytest.approx(0.3, abs=0.06)
    inner = field.potential[field.border : -field.border, field.border : -field.border]
    assert inner[field.covered].mean() > 500 > abs(inner[~field.covered].mean())  # V A: 150 A of carbon over nothing
    beads = scatter_dirt((300, 400), 3.0, Dirt(gold_beads=5, ice_lumps=3), np.random.default_rng(2))
    assert 0.01 < beads.covered.mean() < 0.4
    assert beads.potential.max() == pytest.approx(21.0 * 100.0, rel=0.3)
    assert not Dirt()
    places = np.array([[5.0, 5.0], [395.0, 295.0], [200.0, 150.0]])
    scene = Scene(places, torch.eye(3).expand(3, 3, 3), np.zeros(3))
    covered = np.zeros((300, 400), dtype=bool)
    covered[290:, 390:] = True
    np.testing.assert_array_equal(scene.without(covered).coordinates, places[[0, 2]])
