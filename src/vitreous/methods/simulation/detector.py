"""A counting detector: uneven sensitivity, dead and hot pixels, bad columns, Poisson statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DetectorSettings:
    """gain_spread: relative standard deviation of the pixels' sensitivity; n_hot, n_dead: single pixels; n_columns:
    dead columns; hot_rate: counts of a hot pixel, in units of a good one's."""

    gain_spread: float = 0.03
    n_hot: int = 20
    n_dead: int = 20
    n_columns: int = 1
    hot_rate: float = 30.0


@dataclass(frozen=True)
class Detector:
    """sensitivity (y, x): counts per incident electron, 0 where dead; hot (y, x): extra counts per mean electron.

    columns: x of dead columns.
    """

    sensitivity: NDArray[np.float32]
    hot: NDArray[np.float32]
    columns: tuple[int, ...] = ()

    @property
    def gain(self) -> NDArray[np.float32]:
        """Gain reference: what counts are to be multiplied by, 0 where the detector is dead (y, x)."""
        gain = np.zeros_like(self.sensitivity)
        np.divide(1.0, self.sensitivity, out=gain, where=self.sensitivity > 0)
        return gain

    def count(self, electrons: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint16]:
        """Counts of one frame whose pixels expect `electrons` (y, x): Poisson, uint16."""
        expected = np.maximum(electrons, 0.0) * self.sensitivity + float(electrons.mean()) * self.hot
        return np.minimum(rng.poisson(expected), 65535).astype(np.uint16)


def perfect_detector(shape: tuple[int, int]) -> Detector:
    """Every electron counts once."""
    return Detector(np.ones(shape, np.float32), np.zeros(shape, np.float32))


def random_detector(shape: tuple[int, int], settings: DetectorSettings, rng: np.random.Generator) -> Detector:
    """Draw a detector: tiles read out by separate amplifiers, pixel-to-pixel scatter, defects."""
    height, width = shape
    tile = 128
    tiles = rng.standard_normal((-(-height // tile), -(-width // tile)))
    blocks = np.kron(tiles, np.ones((tile, tile)))[:height, :width]
    scatter = 0.6 * blocks + 0.8 * rng.standard_normal(shape)
    sensitivity = np.clip(1.0 + settings.gain_spread * scatter, 0.5, 1.5).astype(np.float32)
    hot = np.zeros(shape, np.float32)
    picked = rng.permutation(height * width)[: settings.n_hot + settings.n_dead]
    hot.flat[picked[: settings.n_hot]] = settings.hot_rate
    sensitivity.flat[picked[settings.n_hot :]] = 0.0
    columns = tuple(sorted(int(x) for x in rng.permutation(width)[: settings.n_columns]))
    for x in columns:
        sensitivity[:, x] = 0.0
        hot[:, x] = 0.0
    return Detector(sensitivity, hot, columns)
