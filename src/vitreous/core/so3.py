"""Grids of orientations: HEALPix directions times in-plane angles, nested, perturbed, reduced by symmetry.

Order o has 12 * 4^o directions, 6 * 2^o in-plane angles and a step of 60 / 2^o degrees (order 2: 15 degrees). An
orientation has one number in the full grid of its order, `direction * n_psi + psi`, so that its children in the
next order are found by arithmetic. Scheres (2012) J. Struct. Biol. 180, 519; directions from Gorski et al. (2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.core.rotations import axis_angle_to_matrix, euler_to_matrix, matrix_to_euler
from vitreous.core.sphere import child_pixels, n_pixels, pixel_angles, pixel_directions
from vitreous.core.symmetry import in_asymmetric_unit

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

_TABLE_ORDER = 7  # in-plane offsets of the orders up to this (196,608 directions) are kept in tables


def angular_step(order: int) -> float:
    """Degrees between neighbours of a grid: 60 / 2^order."""
    return 60.0 / 2**order


def n_in_plane(order: int) -> int:
    """In-plane angles of a grid: 6 * 2^order."""
    return 6 << order


def grid_eulers(order: int, orientations: Int[Tensor, "n"]) -> Float[Tensor, "n 3"]:
    """(rot, tilt, psi) in degrees, float64, of numbered orientations, before any perturbation."""
    n_psi = n_in_plane(order)
    pixels = torch.div(orientations, n_psi, rounding_mode="floor")
    rot, tilt = pixel_angles(order, pixels)
    # Half a step off zero: children then lie a quarter of a step to either side of their parent.
    psi = (torch.remainder(orientations, n_psi).to(torch.float64) + 0.5) * (360.0 / n_psi)
    return torch.stack([rot, tilt, torch.remainder(psi + in_plane_offset(order, pixels), 360.0)], -1)


def in_plane_offset(order: int, pixels: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """psi (degrees) at which a direction's in-plane angles start: 0 in the base pixels, carried over to children.

    A child starts where its parent's axes point after the shortest turn to the child's direction. With psi counted
    from zero everywhere, the children of directions next to a pole would be turned in plane by up to 45 degrees.
    """
    if order <= _TABLE_ORDER:
        return _in_plane_table(order)[pixels]
    parents = torch.div(pixels, 4, rounding_mode="floor")
    return in_plane_offset(order - 1, parents) + _transport(order - 1, parents, order, pixels)


@lru_cache(maxsize=16)
def _in_plane_table(order: int) -> Tensor:
    if order == 0:
        return torch.zeros(n_pixels(0), dtype=torch.float64)
    pixels = torch.arange(n_pixels(order))
    parents = pixels // 4
    return _in_plane_table(order - 1)[parents] + _transport(order - 1, parents, order, pixels)


def _transport(order: int, pixels: Tensor, to_order: int, to_pixels: Tensor) -> Tensor:
    """psi in degrees, within +-180, of a pose with psi = 0 along one pixel after the shortest turn to another."""
    rot, tilt = pixel_angles(order, pixels)
    poses = euler_to_matrix(rot, tilt, torch.zeros_like(rot))
    psi = _turn_to_directions(to_order, poses, to_pixels)[1]
    return torch.remainder(psi + 180.0, 360.0) - 180.0


def random_perturbation(order: int, generator: torch.Generator, amount: float = 0.5) -> Float[Tensor, "3 3"]:
    """A small random rotation for a whole grid: each component of its vector uniform within +-amount steps.

    Over the iterations it samples what lies between the grid's points.
    """
    vector = (torch.rand(3, generator=generator, dtype=torch.float64) * 2.0 - 1.0) * amount * angular_step(order)
    if not bool(vector.any()):
        return torch.eye(3, dtype=torch.float64)
    return axis_angle_to_matrix(vector, vector.norm())


@dataclass(frozen=True)
class OrientationGrid:
    """A set of orientations of one order.

    orientations: their numbers in the full grid. perturbation: applied on the image's side of every pose (P A), which
    leaves the asymmetric unit of the volume's side exactly covered.
    """

    order: int
    orientations: Int[Tensor, "n"]
    perturbation: Float[Tensor, "3 3"]

    def __len__(self) -> int:
        return int(self.orientations.numel())

    @property
    def step(self) -> float:
        """Degrees between neighbours."""
        return angular_step(self.order)

    def rotations(self, orientations: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n 3 3"]:
        """Pose matrices, float64, of numbered orientations (any of the full grid); all of this grid's by default."""
        chosen = self.orientations if orientations is None else orientations
        return self.perturbation @ euler_to_matrix(*grid_eulers(self.order, chosen).unbind(-1))

    def eulers(self, orientations: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n 3"]:
        """(rot, tilt, psi) in degrees, float64, perturbation included."""
        return torch.stack(matrix_to_euler(self.rotations(orientations)), -1)

    def children(self, orientations: Int[Tensor, "n"] | None = None, generations: int = 1) -> Int[Tensor, "n children"]:
        """The 8^generations finer orientations of each: numbers in the full grid `generations` orders finer."""
        chosen = self.orientations if orientations is None else orientations
        n_psi, split = n_in_plane(self.order), 2**generations
        directions = child_pixels(torch.div(chosen, n_psi, rounding_mode="floor"), generations)
        psi = torch.remainder(chosen, n_psi)[:, None] * split + torch.arange(split, device=chosen.device)
        numbers = directions[:, :, None] * (n_psi * split) + psi[:, None, :]
        return numbers.reshape(len(chosen), -1)

    def finer(self, generations: int = 1) -> OrientationGrid:
        """The grid of all children, with the same perturbation."""
        children = self.children(generations=generations).reshape(-1)
        return OrientationGrid(self.order + generations, children, self.perturbation)


def orientation_grid(
    order: int, symmetry: str = "C1", perturbation: Float[Tensor, "3 3"] | None = None
) -> OrientationGrid:
    """All orientations of an order whose directions lie in the symmetry's asymmetric unit.

    perturbation: a rotation from `random_perturbation`, or none.
    """
    n_psi = n_in_plane(order)
    directions = torch.nonzero(in_asymmetric_unit(pixel_directions(order), symmetry))[:, 0]
    numbers = (directions[:, None] * n_psi + torch.arange(n_psi)).reshape(-1)
    still = torch.eye(3, dtype=torch.float64)
    return OrientationGrid(order, numbers, still if perturbation is None else perturbation)


@dataclass(frozen=True)
class Neighbourhoods:
    """For each of n poses a list of orientations near it, all lists laid end to end.

    starts: where each pose's list begins, and the total at the end (n + 1). orientations: numbers in the full grid.
    log_prior: natural logarithm of the Gaussian prior, not normalised (0 at the pose itself).
    """

    starts: Int[Tensor, "n_plus_1"]
    orientations: Int[Tensor, "total"]
    log_prior: Float[Tensor, "total"]


def neighbourhoods(
    order: int,
    poses: Float[Tensor, "n 3 3"],
    sigma: float,
    perturbation: Float[Tensor, "3 3"] | None = None,
    cutoff: float = 3.0,
) -> Neighbourhoods:
    """Orientations of the full grid within cutoff*sigma (degrees) of each pose, in direction and in plane.

    The prior is Gaussian in the angle between directions and in the in-plane angle. In-plane angles of two
    directions are compared after the shortest turn from one to the other, so that nothing special happens near the
    poles. A pose nearer to no orientation than the cutoff gets the nearest one. Scheres (2012) section 2.4.
    """
    poses = poses.to(torch.float64)
    if perturbation is not None:
        poses = perturbation.T @ poses
    pose_index, direction = _nearby_directions(order, poses[:, 2], sigma * cutoff)
    here = poses[pose_index]
    directions, psi = _turn_to_directions(order, here, direction)
    n_psi = n_in_plane(order)
    step = 360.0 / n_psi
    psi = torch.remainder(psi - in_plane_offset(order, direction), 360.0)
    reach = max(1, int(np.ceil(cutoff * sigma / step)))
    nearest = torch.floor(psi / step).to(torch.int64)
    candidates = nearest[:, None] + torch.arange(-reach, reach + 1)
    psi_off = (candidates.to(torch.float64) + 0.5) * step - psi[:, None]
    away = torch.rad2deg(2.0 * torch.asin((0.5 * (directions - here[:, 2]).norm(dim=1)).clamp(max=1.0)))
    log_prior = -0.5 * (away[:, None].square() + psi_off.square()) / sigma**2
    keep = (psi_off.abs() <= cutoff * sigma) | (candidates == nearest[:, None])
    numbers = direction[:, None] * n_psi + torch.remainder(candidates, n_psi)
    counts = torch.zeros(len(poses), dtype=torch.int64).index_add_(0, pose_index, keep.sum(1))
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return Neighbourhoods(starts, numbers[keep], log_prior[keep])


def _nearby_directions(order: int, directions: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Pairs (pose index, HEALPix pixel) with the pixel within reach degrees; the nearest pixel if there is none."""
    tree = _direction_tree(order)
    chord = 2.0 * np.sin(np.deg2rad(min(reach, 180.0)) / 2.0)
    nearest = np.asarray(tree.query(directions.numpy())[1], dtype=np.int64)
    found = tree.query_ball_point(directions.numpy(), chord, return_sorted=True)
    lists = [np.asarray(pixels, dtype=np.int64) for pixels in found]
    lists = [pixels if len(pixels) else nearest[i : i + 1] for i, pixels in enumerate(lists)]
    counts = torch.tensor([len(pixels) for pixels in lists])
    return torch.repeat_interleave(torch.arange(len(lists)), counts), torch.from_numpy(np.concatenate(lists))


@lru_cache(maxsize=4)
def _direction_tree(order: int) -> cKDTree:
    from scipy.spatial import cKDTree  # a tenth of a second, which 2D classes need not wait for

    return cKDTree(pixel_directions(order, torch.arange(n_pixels(order))).numpy())


def _turn_to_directions(order: int, poses: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each pose by the shortest way to look along its pixel: the pixel's direction and the psi it then has."""
    rot, tilt = pixel_angles(order, pixels)
    directions = pixel_directions(order, pixels)
    old = poses[:, 2]
    axis = torch.linalg.cross(old, directions)
    sine, cosine = axis.norm(dim=1), (old * directions).sum(1)
    safe = torch.where(sine[:, None] > 1e-12, axis, torch.tensor([0.0, 0.0, 1.0], dtype=axis.dtype))
    turn = axis_angle_to_matrix(safe, torch.rad2deg(torch.atan2(sine, cosine)))
    turned = poses @ turn.transpose(1, 2)
    # What is left between the pixel's own axes (psi = 0) and the turned pose is a rotation about z by psi.
    in_plane = turned @ euler_to_matrix(rot, tilt, torch.zeros_like(rot)).transpose(1, 2)
    psi = torch.rad2deg(torch.atan2(in_plane[:, 0, 1], in_plane[:, 0, 0]))
    return directions, torch.remainder(psi, 360.0)
