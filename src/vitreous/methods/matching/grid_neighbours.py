"""The orientations of a search grid that lie near a given one, or near its images under a symmetry."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.core.rotations import euler_to_matrix
from vitreous.core.symmetry import symmetry_matrices


@dataclass(frozen=True)
class GridNeighbours:
    """A grid made ready to be asked. angles: (phi, theta, psi) of all n orientations, one direction's after another.

    poses: their matrices, flat. views: the direction of each view along the beam; view_of: its number, by orientation.
    images: of a pose under the symmetry.
    """

    angles: Float[Tensor, "n 3"]
    poses: Float[Tensor, "n 9"]
    views: Float[Tensor, "m 3"]
    view_of: Int[Tensor, "n"]
    images: Float[Tensor, "order 3 3"]

    @staticmethod
    def of(angles: Float[Tensor, "n 3"], symmetry: str) -> GridNeighbours:
        """Any list of angles; one that has all in-plane angles of a direction together is quick to ask."""
        poses = euler_to_matrix(*angles.unbind(1)).to(torch.float32)
        _, view_of, counts = torch.unique_consecutive(angles[:, :2], dim=0, return_inverse=True, return_counts=True)
        first = torch.cumsum(counts, 0) - counts
        return GridNeighbours(
            angles, poses.reshape(-1, 9), poses[first, 2], view_of, symmetry_matrices(symmetry).to(torch.float32)
        )

    def near(self, angles: Float[Tensor, "3"], reach: float) -> Int[Tensor, "near"]:
        """Numbers of the orientations within `reach` degrees; the nearest at least."""
        pose = euler_to_matrix(*angles.to(torch.float64).unbind()).to(torch.float32)
        equivalent = pose @ self.images  # symmetry acts on the volume
        limit = math.cos(math.radians(reach))
        # Two poses are no nearer than the directions that they are seen from, of which there are far fewer.
        seen_near = (self.views @ equivalent[:, 2].T).max(1).values >= limit - 1e-6
        some = torch.nonzero(seen_near[self.view_of])[:, 0]
        cosine = self._cosines(some, equivalent)
        near = some[cosine >= limit]
        return near if len(near) else self._cosines(torch.arange(len(self.angles)), equivalent).argmax()[None]

    def _cosines(self, numbers: Int[Tensor, "some"], equivalent: Float[Tensor, "order 3 3"]) -> Float[Tensor, "some"]:
        if len(numbers) == 0:
            return torch.zeros(0)
        return 0.5 * ((self.poses[numbers] @ equivalent.reshape(-1, 9).T).max(1).values - 1.0)
