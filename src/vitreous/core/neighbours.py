"""Thin out points so that no two are close."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree


def keep_best_apart(
    points: Float[np.ndarray, "n d"], scores: Float[np.ndarray, "n"], distance: float
) -> Bool[np.ndarray, "n"]:
    """Greedy non-maximum suppression: go from the best down, drop what is nearer than distance to a kept point.

    Equal scores: the earlier point is the better. All points that beat every rival still in play are kept at once,
    so a few rounds do instead of a loop over points.
    """
    count = len(points)
    kept = np.zeros(count, dtype=bool)
    if count == 0 or distance <= 0:
        return ~kept
    pairs = cKDTree(points).query_pairs(distance * (1.0 - 1e-12), output_type="ndarray")
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(count)
    in_order = (rank[pairs[:, 0]] < rank[pairs[:, 1]])[:, None]
    better, worse = np.where(in_order, pairs, pairs[:, ::-1]).T
    playing = np.ones(count, dtype=bool)
    while playing.any():
        live = playing[worse] & playing[better]
        beaten = np.zeros(count, dtype=bool)
        beaten[worse[live]] = True
        winners = playing & ~beaten
        kept |= winners
        playing &= ~winners
        playing[worse[winners[better]]] = False
    return kept
