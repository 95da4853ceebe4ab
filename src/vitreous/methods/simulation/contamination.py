"""What spoils a field of view: gold beads, lumps of ice on the film, the edge of the carbon.

Their potentials are those of the bulk over vitreous ice (mean inner potentials: Reimer and Kohl 2008, Transmission
Electron Microscopy, table 3.2); images are linear in them, as everywhere here, so that gold is dark, but not as sharp
as gold is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

_GOLD, _ICE, _CARBON = 21.0, 3.5, 4.5  # V over what they replace or lie on
_CARBON_THICKNESS = 150.0  # A
_CARBON_GRAIN = 280.0  # V A^2: root of the power spectrum of that film's granularity (0.1 atoms/A^3, S(k) 0.3)
_GOLD_DIAMETER = 100.0  # A
_LUMP_SIZES = (80.0, 400.0)  # A, diameters of ice lumps: from small particles' size to several


@dataclass(frozen=True)
class Dirt:
    """How much of what: numbers of gold beads and of lumps of ice, share of the area that is carbon."""

    gold_beads: int = 0
    ice_lumps: int = 0
    carbon: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.gold_beads or self.ice_lumps or self.carbon)


@dataclass(frozen=True)
class DirtyField:
    """Projected potential (V A) of all dirt, over the micrograph and a border of `border` pixels around it.

    covered: where on the micrograph there is any.
    """

    potential: Float[np.ndarray, "height width"]
    covered: Bool[np.ndarray, "y x"]
    border: int


def scatter_dirt(
    micrograph: tuple[int, int], pixel_size: float, dirt: Dirt, rng: np.random.Generator, border: int = 48
) -> DirtyField:
    """Draw dirt on a micrograph of this shape (y, x): beads and lumps anywhere, carbon from one side."""
    shape = (micrograph[0] + 2 * border, micrograph[1] + 2 * border)
    potential = np.zeros(shape)
    for _ in range(dirt.gold_beads):
        _add(potential, rng.uniform(0, shape), _ball(_GOLD_DIAMETER / pixel_size) * pixel_size * _GOLD)
    for _ in range(dirt.ice_lumps):
        size = math.exp(rng.uniform(*np.log(_LUMP_SIZES)))
        _add(potential, rng.uniform(0, shape), _lump(size / pixel_size, rng) * pixel_size * _ICE)
    film = _film(shape, dirt.carbon, rng) if dirt.carbon else np.zeros(shape, dtype=bool)
    covered = film | (potential > 0.0)
    if film.any():
        grain = rng.standard_normal(shape) * _CARBON_GRAIN / pixel_size
        potential += ndimage.gaussian_filter(film.astype(float), 10.0 / pixel_size) * _CARBON_THICKNESS * _CARBON
        potential += np.where(film, grain, 0.0)
    inner = slice(border, -border) if border else slice(None)
    return DirtyField(potential, covered[inner, inner], border)


def _ball(diameter_px: float) -> Float[np.ndarray, "side side"]:
    """Thickness of a ball, in pixels."""
    half = math.ceil(diameter_px / 2) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return 2.0 * np.sqrt(np.clip((diameter_px / 2) ** 2 - y**2 - x**2, 0.0, None))


def _lump(diameter_px: float, rng: np.random.Generator) -> Float[np.ndarray, "side side"]:
    """Thickness of a few balls grown together: no lump looks like another."""
    total = np.zeros((1, 1))
    for _ in range(int(rng.integers(2, 6))):
        ball = _ball(diameter_px * rng.uniform(0.4, 0.8))
        away = np.rint(rng.normal(0.0, 0.2 * diameter_px, 2)).astype(int)
        side = max(total.shape[0], ball.shape[0] + 2 * int(np.abs(away).max()))
        side += 1 - side % 2
        total = np.pad(total, (side - total.shape[0]) // 2)
        corner = side // 2 - ball.shape[0] // 2 + away
        here = tuple(slice(c, c + n) for c, n in zip(corner, ball.shape, strict=True))
        total[here] = np.maximum(total[here], ball)
    return total


def _add(canvas: Float[np.ndarray, "height width"], centre: np.ndarray, stamp: Float[np.ndarray, "side side"]) -> None:
    """Add a stamp around a centre (y, x); what reaches past the border is cut."""
    corner = np.rint(centre).astype(int) - stamp.shape[0] // 2
    low, high = np.maximum(corner, 0), np.minimum(corner + stamp.shape, canvas.shape)
    if (high > low).all():
        inner = tuple(slice(a, b) for a, b in zip(low - corner, high - corner, strict=True))
        canvas[low[0] : high[0], low[1] : high[1]] += stamp[inner]


def _film(shape: tuple[int, int], share: float, rng: np.random.Generator) -> Bool[np.ndarray, "height width"]:
    """The outside of a round hole that leaves about `share` of the canvas to carbon, its rim across the canvas."""
    y, x = np.indices(shape)
    direction, radius = rng.uniform(0.0, 2.0 * math.pi), 1.5 * max(shape)
    centre = np.array([math.sin(direction), math.cos(direction)]) * radius
    away = np.hypot(y - shape[0] / 2 - centre[0], x - shape[1] / 2 - centre[1])
    return np.asarray(away > np.quantile(away, 1.0 - share))
