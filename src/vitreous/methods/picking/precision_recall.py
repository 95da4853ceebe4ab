"""How well a ranking of candidates agrees with picks that somebody made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class PrecisionRecall:
    """Both at every threshold, the strictest first, and the area under the curve (average precision).

    Where the picks are not complete, particles that nobody picked count as false: precision is then a lower bound.
    """

    threshold: Float[np.ndarray, "n"]
    precision: Float[np.ndarray, "n"]
    recall: Float[np.ndarray, "n"]
    area: float

    def best(self) -> int:
        """Where the harmonic mean of both is greatest."""
        total = np.maximum(self.precision + self.recall, 1e-12)
        return int(np.argmax(2.0 * self.precision * self.recall / total))


def hits(
    candidates: Float[np.ndarray, "n 2"], picks: Float[np.ndarray, "m 2"], tolerance: float
) -> Bool[np.ndarray, "n"]:
    """Which candidates (best first) are the first to come within tolerance of a pick."""
    found = np.zeros(len(candidates), dtype=bool)
    if not len(candidates) or not len(picks):
        return found
    distance, nearest = (np.atleast_1d(np.asarray(part)) for part in cKDTree(picks).query(candidates))
    close = np.flatnonzero(distance <= tolerance)
    _, first = np.unique(nearest[close], return_index=True)
    found[close[first]] = True
    return found


def precision_recall(scores: Float[np.ndarray, "n"], is_hit: Bool[np.ndarray, "n"], n_picks: int) -> PrecisionRecall:
    """The curve of candidates whose hits are known; n_picks: how many there were to find."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(is_hit[order])
    precision = right / np.arange(1, len(order) + 1)
    recall = right / max(n_picks, 1)
    area = float((precision * np.diff(recall, prepend=0.0)).sum())
    return PrecisionRecall(scores[order], precision, recall, area)
