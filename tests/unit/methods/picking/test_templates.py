from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.methods.picking.pick import PickingRecipe, find_candidates
from vitreous.methods.picking.selection import choose_cuts
from vitreous.methods.picking.templates import (
    template_scores,
    template_scores_reference,
    templates_of_images,
    templates_of_map,
)

BOX, PIXEL = 32, 7.0


def bar(angle: float = 0.0, *, box: int = BOX) -> torch.Tensor:
    """A bright bar with a knob at one end, turned anticlockwise (x towards y) by an angle in degrees."""
    y, x = np.mgrid[:box, :box] - box // 2
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    u, v = c * x + s * y, -s * x + c * y
    image = np.exp(-0.5 * ((u / 5) ** 2 + (v / 1.8) ** 2)) + np.exp(-0.5 * (((u - 5) / 2) ** 2 + (v / 3) ** 2))
    return torch.from_numpy(image).float()


def test_scores_are_those_of_the_definition():
    image = np.random.default_rng(0).standard_normal((96, 80))
    template = bar()
    templates = templates_of_images(template[None], PIXEL, BOX * PIXEL, psi_step=360.0)
    got, number = template_scores(image, PIXEL, templates, max_resolution=0.0)
    wanted = template_scores_reference(image, template.double().numpy())
    assert (number == 0).all()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.995
    assert got.std() == pytest.approx(1.0, abs=1e-3)


def test_place_and_direction_of_a_template_are_found():
    image = 0.2 * np.random.default_rng(1).standard_normal((128, 128))
    image[40 : 40 + BOX, 60 : 60 + BOX] += bar(70.0).numpy()
    templates = templates_of_images(bar()[None], PIXEL, BOX * PIXEL, psi_step=10.0)
    scores, number = template_scores(image, PIXEL, templates, max_resolution=15.0)
    y, x = np.unravel_index(int(scores.argmax()), scores.shape)
    assert (y, x) == (40 + BOX // 2, 60 + BOX // 2)
    # a pose of psi turns the volume's x axis to (cos, -sin): the image turns by -psi
    assert float(templates.psi()[number[y, x]]) == pytest.approx(360.0 - 70.0)
    assert scores.max() > 8.0


def test_the_right_class_answers():
    disc = torch.from_numpy((np.hypot(*(np.mgrid[:BOX, :BOX] - BOX // 2)) < 6).astype(np.float32))
    image = 0.3 * np.random.default_rng(1).standard_normal((128, 128))
    image[10 : 10 + BOX, 20 : 20 + BOX] += disc.numpy()
    image[70 : 70 + BOX, 80 : 80 + BOX] += bar(30.0).numpy()
    templates = templates_of_images(torch.stack([bar(), disc]), PIXEL, BOX * PIXEL, psi_step=15.0)
    _, number = template_scores(image, PIXEL, templates, max_resolution=15.0)
    classes = number // len(templates.psi())
    assert classes[10 + BOX // 2, 20 + BOX // 2] == 1
    assert classes[70 + BOX // 2, 80 + BOX // 2] == 0


@pytest.mark.parametrize("dose", [30.0, 12.0])
def test_particles_are_found_by_a_map_with_the_automatic_threshold(scene, recall_precision, dose):
    made = scene("shell", 12000.0, dose)
    z, y, x = (np.mgrid[:BOX, :BOX, :BOX] - BOX // 2) * PIXEL
    radius = np.sqrt(x**2 + y**2 + z**2)
    density = torch.from_numpy(((radius < 61) & (radius > 40)).astype(np.float32))
    templates = templates_of_map(density, PIXEL, 140.0, psi_step=120.0)
    recipe = PickingRecipe(0.95 * made.diameter, 1.05 * made.diameter)
    found = find_candidates(made.micrograph, 2.0, recipe, made.lens, templates)
    kept = choose_cuts([found.scores], found.noise)[0].keeps(found.scores)
    recall, precision = recall_precision(found.coordinates[kept], made)
    assert recall >= 0.95
    assert precision >= 0.95
    assert (found.classes >= 1).all()
    assert (found.classes <= 48).all()


def test_empty_ice_gives_no_picks(scene):
    made = scene("shell", count=0)
    disc = torch.from_numpy((np.hypot(*(np.mgrid[:BOX, :BOX] - BOX // 2)) < 8).astype(np.float32))
    templates = templates_of_images(disc[None], PIXEL, 125.0, psi_step=120.0)
    recipe = PickingRecipe(0.95 * made.diameter, 1.05 * made.diameter)
    found = find_candidates(made.micrograph, 2.0, recipe, made.lens, templates)
    assert choose_cuts([found.scores], found.noise)[0].keeps(found.scores).sum() <= 1


def test_empty_templates_are_refused():
    with pytest.raises(ValueError, match="empty"):
        templates_of_images(torch.zeros(1, BOX, BOX), PIXEL, 100.0)
    with pytest.raises(ValueError, match="empty"):
        templates_of_map(torch.zeros(BOX, BOX, BOX), PIXEL, 100.0)
