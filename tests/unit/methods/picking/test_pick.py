from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.methods.picking.background import even_out, find_contamination, fit_illumination
from vitreous.methods.picking.pick import PickingRecipe, find_candidates
from vitreous.methods.picking.selection import choose_cuts
from vitreous.methods.picking.templates import templates_of_images

PIXEL = 2.0


def recipe_for(scene, **changes):
    return replace(PickingRecipe(0.85 * scene.diameter, 1.15 * scene.diameter), **changes)


def pick(scene, **changes):
    found = find_candidates(scene.micrograph, PIXEL, recipe_for(scene, **changes), scene.lens)
    return found.coordinates[choose_cuts([found.scores], found.noise)[0].keeps(found.scores)]


@pytest.mark.parametrize("kind", ["shell", "ball", "cluster"])
@pytest.mark.parametrize(("defocus", "dose"), [(8000.0, 30.0), (25000.0, 15.0)])
def test_particles_are_found_without_tuning(scene, recall_precision, kind, defocus, dose):
    made = scene(kind, defocus, dose)
    recall, precision = recall_precision(pick(made), made)
    assert recall >= 0.95
    assert precision >= 0.95


def test_a_hint_of_the_size_is_enough(scene, recall_precision):
    made = scene("shell")
    recall, precision = recall_precision(pick(made, diameter_min=90.0, diameter_max=160.0), made)
    assert recall >= 0.9
    assert precision >= 0.9


def test_picks_are_centred(scene):
    made = scene("ball", count=40)
    picks = pick(made)
    nearest = np.hypot(*(picks[:, None] - made.truth[None]).transpose(2, 0, 1)).min(axis=1)
    assert np.sqrt(np.mean(nearest**2)) * PIXEL < 0.07 * made.diameter


def test_empty_ice_gives_no_picks(scene):
    assert len(pick(scene("shell", count=0))) <= 1


def test_no_picks_in_a_crystal_and_few_losses_around_it(scene, recall_precision):
    made = scene("shell", dirty=True, count=50)
    picks = pick(made).astype(int)
    assert not made.crystal[picks[:, 1], picks[:, 0]].any()
    free = ~made.crystal[made.truth[:, 1].astype(int), made.truth[:, 0].astype(int)]
    recall, precision = recall_precision(picks.astype(float), replace(made, truth=made.truth[free]))
    assert recall > 0.75
    assert precision > 0.9


def test_no_picks_along_a_sharp_edge(scene):
    made = scene("shell", count=0)
    edged = made.micrograph.clone()
    edged[:, 500:504] -= 25.0
    picks = pick(replace(made, micrograph=edged), exclude_contamination=False)
    loose = pick(replace(made, micrograph=edged), exclude_contamination=False, min_roundness=0.0)
    assert len(loose) > 8
    assert len(picks) <= 0.3 * len(loose)


def test_white_particles_on_request(scene, recall_precision):
    made = scene("ball")
    inverted = replace(made, micrograph=-made.micrograph)
    assert recall_precision(pick(inverted, dark_particles=False), made)[0] > 0.95
    assert recall_precision(pick(inverted), made)[0] < 0.2


def test_edge_and_distance_are_kept(scene):
    made = scene("ball")
    found = find_candidates(made.micrograph, PIXEL, recipe_for(made, edge=200.0, min_distance=180.0), made.lens)
    side = made.micrograph.shape[0]
    assert found.coordinates.min() >= 100 - 4
    assert found.coordinates.max() <= side - 100 + 4
    apart = np.hypot(*(found.coordinates[:, None] - found.coordinates[None]).transpose(2, 0, 1))
    assert apart[apart > 0].min() >= 90 - 1e-6


def test_same_input_same_picks(scene):
    made = scene("shell")
    first, second = (find_candidates(made.micrograph, PIXEL, recipe_for(made), made.lens) for _ in range(2))
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.coordinates, second.coordinates)


def test_impossible_micrographs_are_refused():
    with pytest.raises(ValueError, match="smaller than two particles"):
        find_candidates(torch.zeros(64, 64), 1.0, PickingRecipe(100.0, 120.0))
    with pytest.raises(ValueError, match="constant"):
        find_candidates(torch.ones(512, 512), 1.0, PickingRecipe(100.0, 120.0))


def test_illumination_is_found_under_a_dark_lump():
    y, x = np.mgrid[:256, :300] / 256 - 0.5
    truth = 100 + 20 * x - 10 * y + 15 * x * y
    image = truth + np.random.default_rng(0).normal(size=truth.shape)
    image[40:110, 60:130] -= 60
    fitted = fit_illumination(image)
    far = np.ones(image.shape, dtype=bool)
    far[30:120, 50:140] = False
    assert np.abs(fitted - truth)[far].max() < 1.5


def test_contamination_is_what_is_larger_than_particles():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(300, 320))
    image[100:180, 120:200] += 5.0
    image[40:50, 40:50] += 1.5  # as large as a particle
    bad = find_contamination(image, 12.0)
    assert bad[105:175, 125:195].all()
    assert not bad[45, 45]
    assert bad.mean() < 0.2
    even = even_out(image, 12.0)
    assert (even.image[bad] == 0).all()
    assert even.image[~bad].std() == pytest.approx(1.0, abs=0.15)


def spoiled(made, rng):
    """The scene with carbon over its right quarter and three beads of gold; where they are."""
    side = made.micrograph.shape[0]
    y, x = np.mgrid[:side, :side]
    carbon = x > 0.75 * side + 0.05 * y
    image = made.micrograph.numpy().copy()
    image[carbon] *= 0.9
    image[carbon] += rng.normal(0.0, 1.5 * image.std(), int(carbon.sum()))
    where = carbon.copy()
    for py, px in ((300, 200), (700, 500), (880, 150)):
        bead = np.hypot(y - py, x - px) < 25
        image[bead] *= 0.5
        where |= bead
    return replace(made, micrograph=torch.from_numpy(image.astype(np.float32))), where


@pytest.mark.parametrize("by", ["log", "templates"])
def test_no_picks_on_carbon_and_gold_by_either_picker(scene, by):
    """Particles beside them are still found."""
    made = scene("shell", count=50)
    dirty, where = spoiled(made, np.random.default_rng(3))
    templates = None
    if by == "templates":
        disc = torch.from_numpy((np.hypot(*(np.mgrid[:96, :96] - 48)) < 35).astype(np.float32))
        templates = templates_of_images(disc[None], PIXEL, made.diameter, psi_step=180.0)
    found = find_candidates(dirty.micrograph, PIXEL, recipe_for(made), made.lens, templates)
    picks = found.coordinates[choose_cuts([found.scores], found.noise)[0].keeps(found.scores)]
    assert not where[picks[:, 1].astype(int), picks[:, 0].astype(int)].any()
    assert found.contaminated == pytest.approx(0.27, abs=0.1)
    far = np.ones(len(made.truth), dtype=bool)
    for index, (x, y) in enumerate(made.truth.astype(int)):
        far[index] = not where[max(0, y - 140) : y + 140, max(0, x - 140) : x + 140].any()
    nearest = np.hypot(*(made.truth[far][:, None] - picks[None]).transpose(2, 0, 1)).min(axis=1)
    assert far.sum() > 8
    assert (nearest < 25).mean() > 0.85
