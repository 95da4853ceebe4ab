"""Particles that are the same particle twice."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from vitreous.core.neighbours import keep_best_apart


def first_of_each(
    positions: Float[np.ndarray, "n 2"],
    micrographs: Int[np.ndarray, "n"],
    distance: float,
    worth: Float[np.ndarray, "n"] | None = None,
) -> Bool[np.ndarray, "n"]:
    """Which particles to keep so that no two on one micrograph are nearer than distance (positions' unit).

    micrographs: a number for each particle's micrograph. worth: greater is kept rather (default: the earlier one is).
    """
    # Micrographs become planes too far apart to matter, so that one tree serves all of them.
    layered = np.column_stack([positions, micrographs * (4.0 * distance)])
    return keep_best_apart(layered, np.zeros(len(positions)) if worth is None else worth, distance)
