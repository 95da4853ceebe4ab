"""Orientations of an exhaustive search: directions in rings or HEALPix pixels, even in-plane angles, symmetry-reduced.

Angles are (phi, theta, psi) in degrees, ZYZ as RELION's rot, tilt, psi: the slice's point (x, y, 0) reads the volume's
transform at Rz(phi) Ry(theta) Rz(psi) (x, y, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.core.sphere import angles_to_direction, pixel_angles
from vitreous.core.symmetry import canonical_name, in_asymmetric_unit

GridMethod = Literal["uniform", "healpix"]


@dataclass(frozen=True)
class AngleLimits:
    """Degrees; directions and in-plane angles outside are left out. Full circles by default."""

    phi: tuple[float, float] = (0.0, 360.0)
    theta: tuple[float, float] = (0.0, 180.0)
    psi: tuple[float, float] = (0.0, 360.0)


def ring_directions(step: float, limits: AngleLimits | None = None) -> Float[Tensor, "n 2"]:
    """(phi, theta) in rings of equal theta, `step` degrees apart along and between them.

    A ring has round(width sin(theta) / step) directions over its width in phi, at least one. The rings go on until they
    have passed the upper limit of theta, so that nothing within the limits is further than a step from a ring.
    """
    limits = limits or AngleLimits()
    low, high = limits.theta
    width = limits.phi[1] - limits.phi[0]
    n_rings = math.ceil((high - low) / step - 1e-9) + 1
    rings = []
    for theta in (low + step * i for i in range(n_rings)):
        count = max(1, round(width * abs(math.sin(math.radians(theta))) / step))
        phi = limits.phi[0] + torch.arange(count, dtype=torch.float64) * (width / count)
        rings.append(torch.stack([phi, torch.full_like(phi, theta)], 1))
    return torch.cat(rings)


def healpix_directions(step: float) -> Float[Tensor, "n 2"]:
    """(phi, theta) of the coarsest HEALPix grid whose pixels (58.6 / 2^order degrees) are no wider than step."""
    order = max(0, math.ceil(math.log2(math.degrees(math.sqrt(math.pi / 3.0)) / step) - 1e-9))
    return torch.stack(pixel_angles(order), 1)


def in_plane_angles(step: float, limits: tuple[float, float] = (0.0, 360.0)) -> Float[Tensor, "n"]:
    """psi from the lower limit on, below the upper one; a full circle is divided evenly by the nearest whole number."""
    width = limits[1] - limits[0]
    if width >= 360.0 - 1e-9:
        count = max(1, round(360.0 / step))
        return limits[0] + torch.arange(count, dtype=torch.float64) * (360.0 / count)
    return limits[0] + step * torch.arange(max(1, math.ceil(width / step - 1e-9)), dtype=torch.float64)


def search_orientations(
    psi_step: float = 1.5,
    theta_step: float = 2.5,
    symmetry: str = "C1",
    *,
    method: GridMethod = "uniform",
    limits: AngleLimits | None = None,
) -> Float[Tensor, "n 3"]:
    """(phi, theta, psi), float64: all directions of the group's asymmetric unit times all in-plane angles.

    Explicit limits go before the symmetry: what the user asks for is searched as it stands.
    """
    directions = ring_directions(theta_step, limits) if method == "uniform" else healpix_directions(theta_step)
    if limits is None:
        if canonical_name(symmetry) != "C1":
            inside = in_asymmetric_unit(angles_to_direction(directions[:, 0], directions[:, 1]), symmetry)
            directions = directions[inside]
    elif method == "healpix":
        phi, theta = directions.unbind(1)
        inside = (theta >= limits.theta[0]) & (theta <= limits.theta[1])
        directions = directions[inside & (torch.remainder(phi - limits.phi[0], 360.0) <= limits.phi[1] - limits.phi[0])]
    psi = in_plane_angles(psi_step, limits.psi if limits else (0.0, 360.0))
    if len(directions) == 0:
        raise InputError("orientation search", "the limits leave no orientation", "Widen them or take finer steps.")
    turned = torch.cat([directions.repeat_interleave(len(psi), 0), psi.repeat(len(directions))[:, None]], 1)
    return turned


def symmetry_rectangle(symmetry: str) -> AngleLimits:
    """The rectangle of angles that Leopard-EM searches for a group, to compare with it: for T, O, I more than the unit.

    Raises InputError for a group that has none.
    """
    name = canonical_name(symmetry)
    if name[0] in "CD":
        return AngleLimits(phi=(0.0, 360.0 / int(name[1:])), theta=(0.0, 180.0 if name[0] == "C" else 90.0))
    polyhedral = {"T": (180.0, 54.7356), "O": (90.0, 54.7356), "I": (180.0, 31.7)}
    phi, theta = polyhedral[name[0]]
    return AngleLimits(phi=(0.0, phi), theta=(0.0, theta))


def pair_twins(angles: Float[Tensor, "n 3"]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Orientations to project, and for each the number of the one 180 degrees further in plane (-1: there is none).

    Every orientation is in one of the two lists exactly once. The projection at psi + 180 is the other one inverted.
    """
    plain = angles.to(torch.float64).numpy()
    scaled = np.rint(np.column_stack([plain[:, :2], np.mod(plain[:, 2], 180.0)]) * 1e5).astype(np.int64)
    scaled[:, 2] %= 18_000_000
    turned = np.mod(plain[:, 2], 360.0) >= 180.0 - 5e-6
    order = np.lexsort((np.arange(len(plain)), turned, scaled[:, 2], scaled[:, 1], scaled[:, 0]))
    here, following = order[:-1], order[1:]
    starts = (scaled[here] == scaled[following]).all(1) & ~turned[here] & turned[following]
    twins = np.full(len(plain), -1, np.int64)
    twins[here[starts]] = following[starts]
    is_twin = np.zeros(len(plain), bool)
    is_twin[following[starts]] = True
    first = np.flatnonzero(~is_twin)
    return first, twins[first]
