"""Maxima of a score map: where, how exactly, how round."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage


def local_maxima(
    scores: Float[np.ndarray, "height width"], allowed: Bool[np.ndarray, "height width"]
) -> Int[np.ndarray, "n 2"]:
    """Pixels (y, x) that are the greatest of their 3 x 3 neighbourhood and allowed, best first."""
    highest = ndimage.maximum_filter(scores, size=3, mode="nearest")
    y, x = np.nonzero((scores >= highest) & allowed)
    order = np.argsort(-scores[y, x], kind="stable")
    return np.stack([y, x], axis=1)[order]


def refine_maxima(scores: Float[np.ndarray, "height width"], peaks: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Vertices of the parabolas through each maximum and its neighbours along y and x: at most half a pixel away."""
    refined = peaks.astype(np.float64)
    for axis in (0, 1):
        step = np.eye(2, dtype=np.int64)[axis]
        inside = (peaks[:, axis] > 0) & (peaks[:, axis] < scores.shape[axis] - 1)
        at = peaks[inside]
        before, here, after = (scores[tuple((at + k * step).T)] for k in (-1, 0, 1))
        curvature = before - 2.0 * here + after
        bent = curvature < 0
        offset = np.where(bent, 0.5 * (before - after) / np.where(bent, curvature, 1.0), 0.0)
        refined[inside, axis] += np.clip(offset, -0.5, 0.5)
    return refined


def roundness(
    scores: Float[np.ndarray, "height width"], positions: Float[np.ndarray, "n 2"], step: float
) -> Float[np.ndarray, "n"]:
    """Smaller over larger curvature at each maximum (y, x), from second differences over step pixels.

    1 for a round blob, about 0 on a ridge: the edge of carbon or of a crystal answers to a blob filter too, but
    along the edge its response does not fall off.
    """

    def at(dy: float, dx: float) -> Float[np.ndarray, "n"]:
        return ndimage.map_coordinates(scores, (positions + np.array([dy, dx])).T, order=1, mode="nearest")

    diagonal = step / np.sqrt(2.0)
    centre = at(0.0, 0.0)
    yy = at(step, 0.0) - 2.0 * centre + at(-step, 0.0)
    xx = at(0.0, step) - 2.0 * centre + at(0.0, -step)
    rising = at(diagonal, diagonal) + at(-diagonal, -diagonal)
    falling = at(diagonal, -diagonal) + at(-diagonal, diagonal)
    middle, spread = 0.5 * (yy + xx), np.hypot(0.5 * (yy - xx), 0.5 * (rising - falling))
    strongest = middle - spread
    return np.where(strongest < 0, (middle + spread) / np.where(strongest < 0, strongest, -1.0), 0.0)
