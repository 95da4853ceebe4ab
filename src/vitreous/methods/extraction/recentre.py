"""Move coordinates to where refinement found the particles."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from vitreous.core.rotations import euler_to_matrix


def recentre(
    coordinates: Float[np.ndarray, "n 2"], origins: Float[np.ndarray, "n 2"], pixel_size: float
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Take whole pixels of the origins into the coordinates; returns (coordinates, what is left of the origins).

    coordinates: x, y in micrograph pixels of pixel_size (A). origins: x, y in A, the shift that brings the particle
    to the box centre, so the particle lies at coordinate - origin / pixel_size.
    """
    whole = np.floor(np.abs(origins) / pixel_size + 0.5) * np.sign(origins)  # half away from zero
    return coordinates - whole, origins - whole * pixel_size


def centre_on_point(
    origins: Float[np.ndarray, "n 2"], points: Float[np.ndarray, "n 3"], angles: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 2"]:
    """Origins (x, y, A) that bring another point of the reference to the box centre.

    points: x, y, z in A from the reference's centre, one a particle. angles: rot, tilt, psi, degrees; a 2D class has
    rot and tilt 0 and z 0.
    """
    matrices = euler_to_matrix(*(torch.from_numpy(np.ascontiguousarray(angle)) for angle in angles.T)).numpy()
    return origins - np.einsum("nij,nj->ni", matrices, points)[:, :2]


def centre_of_mass(density: Float[np.ndarray, "*box"], pixel_size: float) -> Float[np.ndarray, "3"]:
    """x, y, z (A, from index box//2; z 0 for an image) of what stands out: above a fifth of the density's maximum.

    Raises ValueError where nothing does.
    """
    weight = np.clip(density - 0.2 * float(np.percentile(density, 99.9)), 0.0, None)
    total = float(weight.sum())
    if total <= 0.0:
        raise ValueError("has no density that stands out")
    grids = np.indices(density.shape) - np.array(density.shape).reshape(-1, *(1,) * density.ndim) // 2
    centre = [float((grid * weight).sum()) / total * pixel_size for grid in grids][::-1]
    return np.array([*centre, *[0.0] * (3 - len(centre))])
