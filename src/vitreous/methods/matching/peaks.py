"""Peaks of a score map, each the highest for some distance around."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from vitreous.core.neighbours import keep_best_apart


@dataclass(frozen=True)
class Peaks:
    """positions (n, 2): (y, x) in pixels of the map. scores (n,), falling."""

    positions: Int[np.ndarray, "n 2"]
    scores: Float[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.scores)


def find_peaks(score: Float[np.ndarray, "y x"], threshold: float, min_distance: float) -> Peaks:
    """Local maxima above threshold, none nearer than min_distance (pixels) to a higher one; the highest first."""
    radius = max(1, int(min_distance))
    # A square inside the circle is quick to scan and only thins out what the exact test below would drop.
    side = 2 * max(1, int(radius / np.sqrt(2.0))) + 1
    highest = ndimage.maximum_filter(score, size=side, mode="constant", cval=-np.inf)
    positions = np.argwhere((score == highest) & (score > threshold))
    scores = score[positions[:, 0], positions[:, 1]].astype(np.float64)
    kept = keep_best_apart(positions.astype(np.float64), scores, min_distance)
    positions, scores = positions[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")
    return Peaks(positions[order], scores[order])
