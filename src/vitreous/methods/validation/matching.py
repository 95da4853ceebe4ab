"""Which found particle is which true one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Matches:
    """Pairs of found and true points, each used once: indices (n,) and their distance (n,)."""

    found: NDArray[np.int64]
    true: NDArray[np.int64]
    distance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.found)


def match_points(found: Float[np.ndarray, "n 2"], true: Float[np.ndarray, "m 2"], tolerance: float) -> Matches:
    """Pair points nearer than tolerance one to one, the closest pairs first."""
    if len(found) == 0 or len(true) == 0:
        empty = np.zeros(0, dtype=np.int64)
        return Matches(empty, empty, np.zeros(0))
    near = cKDTree(found).sparse_distance_matrix(cKDTree(true), tolerance, output_type="ndarray")
    free_found, free_true = np.ones(len(found), dtype=bool), np.ones(len(true), dtype=bool)
    pairs: list[tuple[int, int, float]] = []
    for i, j, distance in np.sort(near, order=["v", "i", "j"]):
        if free_found[i] and free_true[j]:
            free_found[i] = free_true[j] = False
            pairs.append((int(i), int(j), float(distance)))
    return Matches(
        np.array([pair[0] for pair in pairs], dtype=np.int64),
        np.array([pair[1] for pair in pairs], dtype=np.int64),
        np.array([pair[2] for pair in pairs]),
    )


@dataclass(frozen=True)
class PickCounts:
    """What a picker found on some micrographs; counts add up.

    found: picks; true: particles; matched: one-to-one pairs. true_inside, matched_inside: of those, particles that
    lie at least the edge margin inside the micrograph, where a picker may be expected to find them.
    """

    found: int = 0
    true: int = 0
    matched: int = 0
    true_inside: int = 0
    matched_inside: int = 0

    def __add__(self, other: PickCounts) -> PickCounts:
        return PickCounts(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def _values(self) -> tuple[int, ...]:
        return (self.found, self.true, self.matched, self.true_inside, self.matched_inside)

    @property
    def recall(self) -> float:
        """Share of all true particles that were found."""
        return self.matched / self.true if self.true else float("nan")

    @property
    def recall_inside(self) -> float:
        """The same among particles away from the edge."""
        return self.matched_inside / self.true_inside if self.true_inside else float("nan")

    @property
    def precision(self) -> float:
        """Share of picks that are particles (those at the edge are particles too)."""
        return self.matched / self.found if self.found else float("nan")


def count_picks(
    matches: Matches,
    n_found: int,
    true: Float[np.ndarray, "m 2"],
    field: tuple[float, float],
    margin: float,
) -> PickCounts:
    """Count one micrograph. field: its width and height, margin: both in the unit of the points (x, y)."""
    inside = np.all((true >= margin) & (true <= np.asarray(field) - margin), axis=1)
    return PickCounts(n_found, len(true), len(matches), int(inside.sum()), int(np.take(inside, matches.true).sum()))
