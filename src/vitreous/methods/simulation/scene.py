"""Where the particles of a micrograph lie, how they are turned, how high they float."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.rotations import euler_to_matrix, quaternion_to_matrix


@dataclass(frozen=True)
class Crowd:
    """What to draw a scene from.

    n_particles: wanted; fewer where they do not fit. min_distance: A between centres. edge: A from the border.
    ice_thickness: A; heights are uniform over what the particle's diameter leaves of it, in slabs of height_step.
    preferred: (rot, tilt) in degrees of the direction in the model that prefers to point along the beam, with
    concentration kappa (von Mises-Fisher); kappa 0: uniform.
    """

    n_particles: int
    min_distance: float
    edge: float
    ice_thickness: float = 300.0
    diameter: float = 0.0
    height_step: float = 40.0
    preferred: tuple[float, float] = (0.0, 0.0)
    kappa: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Particles of one micrograph.

    coordinates (n, 2): x, y in pixels of the micrograph (0-based, the first pixel's centre is 0); rotations
    (n, 3, 3): volume axes to image axes; heights (n,): A, added to the micrograph's defocus.
    """

    coordinates: NDArray[np.float64]
    rotations: Tensor
    heights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.coordinates)

    def without(self, covered: NDArray[np.bool_]) -> Scene:
        """Without the particles whose centre lies on covered pixels (y, x) of the micrograph."""
        x, y = np.rint(self.coordinates).astype(np.int64).T
        free = ~covered[np.clip(y, 0, covered.shape[0] - 1), np.clip(x, 0, covered.shape[1] - 1)]
        return Scene(self.coordinates[free], self.rotations[torch.from_numpy(free)], self.heights[free])


@numba.njit(cache=True)
def _accept(candidates: NDArray[np.float64], wanted: int, min_distance: float) -> NDArray[np.int64]:
    """Take candidates in order, each that keeps its distance from all taken before: their indices."""
    taken = np.empty(wanted, np.int64)
    count = 0
    limit = min_distance * min_distance
    for index in range(candidates.shape[0]):
        if count == wanted:
            break
        clear = True
        for other in range(count):
            dx = candidates[index, 0] - candidates[taken[other], 0]
            dy = candidates[index, 1] - candidates[taken[other], 1]
            if dx * dx + dy * dy < limit:
                clear = False
                break
        if clear:
            taken[count] = index
            count += 1
    return taken[:count]


def random_positions(
    shape: tuple[int, int], wanted: int, min_distance: float, edge: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Up to `wanted` points (n, 2) as x, y in pixels, uniform but for their distances (random sequential addition).

    min_distance, edge: pixels. Feller (1971); saturates at 0.547 of the area in discs of that diameter.
    """
    low = np.array([edge, edge])
    high = np.array([shape[1] - 1 - edge, shape[0] - 1 - edge])
    if wanted <= 0 or (high <= low).any():
        return np.zeros((0, 2))
    candidates = rng.uniform(low, high, (200 * wanted + 1000, 2))
    return candidates[_accept(candidates, wanted, min_distance)]


def uniform_rotations(n: int, rng: np.random.Generator) -> Tensor:
    """Rotations uniform over SO(3), float64 (n, 3, 3)."""
    q = torch.from_numpy(rng.standard_normal((n, 4)))
    return quaternion_to_matrix(q / q.norm(dim=1, keepdim=True))


def preferred_rotations(n: int, direction: tuple[float, float], kappa: float, rng: np.random.Generator) -> Tensor:
    """Rotations whose viewing direction is von Mises-Fisher about `direction` (rot, tilt in degrees), psi uniform.

    Wood (1994) Commun. Stat. Simul. 23, 157: on the sphere the cosine has a closed inverse distribution.
    """
    u = rng.uniform(size=n)
    cosine = 1.0 + np.log(u + (1.0 - u) * math.exp(-2.0 * kappa)) / kappa
    azimuth = rng.uniform(0.0, 2.0 * math.pi, n)
    sine = np.sqrt(np.clip(1.0 - cosine**2, 0.0, None))
    local = torch.from_numpy(np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], 1))
    rot, tilt = (torch.tensor(angle, dtype=torch.float64) for angle in direction)
    frame = euler_to_matrix(rot, tilt, torch.zeros((), dtype=torch.float64))  # its third row is the direction
    views = local @ frame
    psi = torch.from_numpy(rng.uniform(-180.0, 180.0, n))
    return euler_to_matrix(
        torch.rad2deg(torch.atan2(views[:, 1], views[:, 0])), torch.rad2deg(torch.acos(views[:, 2].clamp(-1, 1))), psi
    )


def random_scene(shape: tuple[int, int], pixel_size: float, crowd: Crowd, rng: np.random.Generator) -> Scene:
    """Draw a scene on a micrograph of `shape` (y, x)."""
    coordinates = random_positions(
        shape, crowd.n_particles, crowd.min_distance / pixel_size, crowd.edge / pixel_size, rng
    )
    n = len(coordinates)
    if crowd.kappa > 0:
        rotations = preferred_rotations(n, crowd.preferred, crowd.kappa, rng)
    else:
        rotations = uniform_rotations(n, rng)
    room = max(crowd.ice_thickness - crowd.diameter, 0.0) / 2.0
    heights = rng.uniform(-room, room, n)
    # Particles share a slab's defocus, exactly: one CTF multiplication a slab, and the truth is the slab's.
    heights = np.rint(heights / crowd.height_step) * crowd.height_step
    return Scene(coordinates, rotations, heights + 0.0)
