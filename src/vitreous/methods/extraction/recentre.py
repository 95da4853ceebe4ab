"""Move coordinates to where refinement found the particles."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def recentre(
    coordinates: Float[np.ndarray, "n 2"], origins: Float[np.ndarray, "n 2"], pixel_size: float
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Take whole pixels of the origins into the coordinates; returns (coordinates, what is left of the origins).

    coordinates: x, y in micrograph pixels of pixel_size (A). origins: x, y in A, the shift that brings the particle
    to the box centre, so the particle lies at coordinate - origin / pixel_size.
    """
    whole = np.floor(np.abs(origins) / pixel_size + 0.5) * np.sign(origins)  # half away from zero
    return coordinates - whole, origins - whole * pixel_size
