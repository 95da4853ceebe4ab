"""Micrographs made from weak-phase physics, for picking alone: shells, balls and asymmetric clusters in ice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.methods.picking.pick import Lens

# Interaction constant at 300 kV (rad / V A), protein over ice (V), variance of projected ice (rad^2 A^2).
SIGMA, PROTEIN, ICE = 6.53e-4, 2.4, 0.01
PIXEL, SIDE, BOX = 2.0, 1024, 120
DIAMETERS = {"shell": 125.0, "ball": 140.0, "cluster": 170.0}


@dataclass(frozen=True)
class Scene:
    """A micrograph (counts), where its particles are (x, y in pixels), how it was seen, how large they are (A)."""

    micrograph: torch.Tensor
    truth: np.ndarray
    lens: Lens
    diameter: float
    crystal: np.ndarray


def ball(radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 2.0 * np.sqrt(np.clip(radius**2 - x**2 - y**2, 0.0, None))


def projection(kind: str, rng: np.random.Generator) -> np.ndarray:
    y, x = (np.mgrid[:BOX, :BOX] - BOX // 2) * PIXEL
    if kind == "shell":
        return PROTEIN * (ball(61, x, y) - ball(40, x, y))
    if kind == "ball":
        return 0.8 * PROTEIN * ball(70, x, y)
    centres = np.array([[0, 0, 0], [45, 10, 0], [-30, 35, 10], [-10, -40, 20], [20, 20, 40], [-20, 0, -45.0]])
    centres = (centres - centres.mean(axis=0)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0].T
    return sum(
        0.7 * PROTEIN * ball(r, x - c[0], y - c[1]) for c, r in zip(centres, (35, 28, 24, 26, 22, 25), strict=True)
    )


def place(kind: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Projected potential (V A) and centres (x, y) at least 1.1 diameters apart, wholly inside."""
    field, points = np.zeros((SIDE, SIDE)), np.zeros((0, 2), dtype=int)
    for _ in range(200 * count):
        if len(points) == count:
            break
        point = rng.integers(BOX // 2, SIDE - BOX // 2, 2)
        if len(points) and np.hypot(*(points - point).T).min() < 1.1 * DIAMETERS[kind] / PIXEL:
            continue
        points = np.vstack([points, point])
        x, y = point - BOX // 2
        field[y : y + BOX, x : x + BOX] += projection(kind, rng)
    return field, points.astype(float)


def crystal(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A lump of ice 500 A across with lattice fringes: potential and where it is."""
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx = rng.integers(200, SIDE - 200, 2)
    height = ball(250.0, (x - cx) * PIXEL, (y - cy) * PIXEL)
    return 4.5 * height * (1 + 0.3 * np.sin(0.3 * y + 0.2 * x)), height > 0


@pytest.fixture(scope="session")
def scene() -> Callable[..., Scene]:
    def make(kind: str, defocus: float = 12000.0, dose: float = 30.0, count: int = 60, dirty: bool = False) -> Scene:
        rng = np.random.default_rng(5)
        field, truth = place(kind, count, rng)
        lump, where = crystal(rng) if dirty else (0.0, np.zeros(field.shape, dtype=bool))
        phase = SIGMA * (field + lump) + rng.normal(size=field.shape) * np.sqrt(ICE) / PIXEL
        values = (defocus, 0.97 * defocus, 30.0, 0.0)
        lens = Lens(Microscope(300.0, 2.7, 0.1), Defocus(*(torch.tensor([v]) for v in values)))
        transfer = ctf((SIDE, SIDE), PIXEL, lens.microscope, lens.defocus, b_factor=80.0)[0].numpy()
        contrast = -2.0 * np.fft.irfft2(np.fft.rfft2(phase) * transfer, s=phase.shape)
        light = 1.0 + 0.2 * (np.arange(SIDE) / SIDE - 0.5)
        counts = rng.poisson(dose * PIXEL**2 * light * np.clip(1.0 + contrast, 0.05, None))
        return Scene(torch.from_numpy(counts.astype(np.float32)), truth, lens, DIAMETERS[kind], where)

    return make


@pytest.fixture(scope="session")
def recall_precision() -> Callable[..., tuple[float, float]]:
    def score(picks: np.ndarray, scene: Scene) -> tuple[float, float]:
        """A pick is right within a third of the diameter of a particle that no better pick has taken."""
        if not len(picks):
            return 0.0, 0.0
        distances = np.hypot(*(scene.truth[:, None] - picks[None]).transpose(2, 0, 1))
        near = distances < scene.diameter / PIXEL / 3
        nearest = np.argmin(distances, axis=1)
        hit = near[np.arange(len(scene.truth)), nearest]
        return float(hit.mean()), len(set(nearest[hit])) / len(picks)

    return score
