from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.masks import distance_grid
from vitreous.methods.maps.solvent_mask import automatic_threshold, drop_islands, make_mask, soften


def ball(box: int, radius: float, noise: float, generator: torch.Generator) -> torch.Tensor:
    return (distance_grid(box, 3) < radius).float() + noise * torch.randn(box, box, box, generator=generator)


def test_soften_is_one_within_and_falls_by_a_cosine():
    solid = np.zeros((21, 21, 21), dtype=bool)
    solid[10, 10, 10] = True
    mask = soften(solid, extend=3, edge=4)
    assert mask[10, 10, 12] == 1.0
    assert mask[10, 10, 14] == pytest.approx(0.5)
    assert mask[10, 10, 16] == pytest.approx(0.0)


def test_automatic_threshold_finds_the_ball(generator):
    density = ball(48, 12, 0.5, generator)
    made = make_mask(density, 2.0, lowpass_resolution=15.0, extend=0, edge=0)
    truth = distance_grid(48, 3) < 12
    overlap = (made.mask > 0.5) & truth
    assert overlap.sum() > 0.98 * truth.sum()
    assert (made.mask > 0.5).sum() < 1.6 * truth.sum()


def test_threshold_of_pure_noise_lies_above_its_bulk(generator):
    noise = torch.randn(40, 40, 40, generator=generator)
    assert (noise > automatic_threshold(noise)).float().mean() < 1e-3


def test_islands_go_and_the_particle_stays():
    solid = np.zeros((20, 20, 20), dtype=bool)
    solid[2:10, 2:10, 2:10] = True
    solid[15, 15, 15] = True
    kept = drop_islands(solid, 0.02)
    assert kept[5, 5, 5]
    assert not kept[15, 15, 15]


def test_holes_are_filled_on_request():
    shell = (distance_grid(40, 3) < 14).float() * (distance_grid(40, 3) > 10).float()
    hollow = make_mask(shell, 3.0, threshold=0.5, lowpass_resolution=None, extend=0, edge=0)
    full = make_mask(shell, 3.0, threshold=0.5, lowpass_resolution=None, extend=0, edge=0, fill_holes=True)
    assert hollow.mask[20, 20, 20] == 0
    assert full.mask[20, 20, 20] == 1


def test_nothing_above_the_threshold_is_said():
    with pytest.raises(ValueError, match="no voxel lies above"):
        make_mask(torch.zeros(16, 16, 16), 1.0, threshold=1.0)
