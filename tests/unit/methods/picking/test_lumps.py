"""Small lumps of ice among particles: found where most candidates are particles, left alone where they are noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from vitreous.methods.picking.lumps import find_lumps, unlike_noise
from vitreous.methods.picking.pick import PickingRecipe, find_candidates
from vitreous.methods.picking.selection import choose_cuts
from vitreous.methods.picking.templates import templates_of_images

PIXEL, DIAMETER_PX = 2.0, 22.0
LUMPS = ((200, 260, 30), (420, 700, 36), (640, 180, 50), (800, 840, 33), (300, 900, 28), (860, 420, 40), (560, 480, 31))


def lumpy(made):
    """The scene with dark lumps, from smaller than a particle to half again as large; how far each place is inside."""
    y, x = np.mgrid[: made.micrograph.shape[0], : made.micrograph.shape[1]]
    image, where = made.micrograph.numpy().copy(), np.zeros(made.micrograph.shape, dtype=bool)
    for py, px, radius in LUMPS:
        height = np.sqrt(np.clip(1.0 - ((y - py) ** 2 + (x - px) ** 2) / radius**2, 0.0, None))
        image *= 1.0 - 0.3 * height * radius / 50
        where |= height > 0
    return replace(made, micrograph=torch.from_numpy(image)), ndimage.distance_transform_edt(~where)


@pytest.mark.parametrize("by", ["log", "templates"])
def test_particles_are_picked_among_lumps_that_answer_more(scene, by):
    made, away = lumpy(scene("shell", count=60))
    recipe = PickingRecipe(0.9 * made.diameter, 1.1 * made.diameter)
    templates = None
    if by == "templates":
        radius = np.hypot(*(np.mgrid[:96, :96] - 48)) * PIXEL
        shell = np.sqrt(np.clip(61**2 - radius**2, 0, None)) - np.sqrt(np.clip(40**2 - radius**2, 0, None))
        templates = templates_of_images(torch.from_numpy(shell.astype(np.float32))[None], PIXEL, made.diameter)
    found = find_candidates(made.micrograph, PIXEL, recipe, made.lens, templates)
    picks = found.coordinates[choose_cuts([found.scores], found.noise)[0].keeps(found.scores)]
    x, y = picks.astype(int).T
    assert (away[y, x] == 0).mean() < 0.05
    free = made.truth[away[tuple(made.truth.astype(int)[:, ::-1].T)] > 0.5 * made.diameter / PIXEL]
    nearest = np.hypot(*(free[:, None] - picks[None]).transpose(2, 0, 1)).min(axis=1)
    assert len(free) > 30
    assert (nearest < 20).mean() > 0.95


def field(rng: np.random.Generator, side: int = 400) -> np.ndarray:
    """Gaussian noise of a spectrum that falls and has rings, as a micrograph's has."""
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    power = (1.0 + 3.0 * np.exp(-k / 0.02)) * (0.3 + np.sin(300.0 * k**2 + 0.3) ** 2)
    image = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * np.sqrt(power), s=(side, side))
    return image / image.std()


def blobs(rng: np.random.Generator, side: int = 400, step: int = 34) -> tuple[np.ndarray, np.ndarray]:
    """Discs of a particle's size on a grid that is not quite regular: image and centres (y, x)."""
    y, x = np.mgrid[:side, :side]
    grid = np.stack(np.meshgrid(np.arange(30, side - 30, step), np.arange(30, side - 30, step)), -1).reshape(-1, 2)
    centres = grid + rng.integers(-4, 5, grid.shape)
    image = np.zeros((side, side))
    for cy, cx in centres:
        image += np.hypot(y - cy, x - cx) < 0.5 * DIAMETER_PX
    return image, centres


@pytest.mark.parametrize("seed", range(5))
def test_maxima_of_coloured_noise_look_like_noise_and_discs_do_not(seed):
    rng = np.random.default_rng(seed)
    noise, clean = field(rng), np.ones((400, 400), dtype=bool)
    smooth = ndimage.gaussian_laplace(noise, DIAMETER_PX / np.sqrt(8.0), mode="wrap")
    lowest = ndimage.minimum_filter(smooth, round(DIAMETER_PX), mode="wrap")
    assert unlike_noise(noise, clean, np.argwhere(smooth == lowest), DIAMETER_PX) < 4.0
    discs, centres = blobs(rng)
    assert unlike_noise(noise + discs, clean, centres, DIAMETER_PX) > 8.0


def test_lumps_are_found_among_many_particles_and_rare_strong_things_left_alone():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:400, :400]
    clean = np.ones((400, 400), dtype=bool)
    discs, _ = blobs(rng)
    lumps = sum((np.hypot(y - cy, x - cx) < 13).astype(float) for cy, cx in ((100, 120), (290, 300), (200, 330)))
    found = find_lumps(field(rng) + discs + 5.0 * lumps, clean, DIAMETER_PX)
    assert found[lumps > 0].mean() > 0.9
    assert found.mean() < 3.0 * lumps.mean()
    assert not find_lumps(field(rng) + discs, clean, DIAMETER_PX).any()
    assert not find_lumps(field(rng) + 5.0 * lumps, clean, DIAMETER_PX).any()
    assert not find_lumps(field(rng), clean, DIAMETER_PX).any()
