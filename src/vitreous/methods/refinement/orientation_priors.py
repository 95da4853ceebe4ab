"""What is known of orientations beforehand: limits on the tilt, priors on tilt and psi, a symmetry in doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.rotations import matrix_to_euler
from vitreous.core.so3 import Neighbourhoods, OrientationGrid, neighbourhoods
from vitreous.core.symmetry import symmetry_matrices

_CUTOFF = 3.0  # standard deviations


@dataclass(frozen=True)
class OrientationPriors:
    """Limits and priors of a set of n particles.

    limit_tilt (degrees): positive keeps side views, tilts of at least that; negative keeps top views, tilts of at most
    that (a view and the one from behind count alike); 0: none. tilt, psi: (n,) expected angles in degrees, with the
    standard deviations sigma_tilt and sigma_psi (0: no prior). origins: (n, 2) expected origins in pixels.
    """

    limit_tilt: float = 0.0
    tilt: NDArray[np.float64] | None = None
    psi: NDArray[np.float64] | None = None
    sigma_tilt: float = 0.0
    sigma_psi: float = 0.0
    origins: NDArray[np.float64] | None = None

    @property
    def of_particles(self) -> bool:
        """Whether particles have priors of their own on the angles."""
        return (self.tilt is not None and self.sigma_tilt > 0) or (self.psi is not None and self.sigma_psi > 0)

    def limited(self, grid: OrientationGrid) -> OrientationGrid:
        """The orientations of a grid within the limits."""
        if not self.limit_tilt:
            return grid
        tilt = grid.eulers()[:, 1]
        return OrientationGrid(grid.order, grid.orientations[self._allowed(tilt)], grid.perturbation)

    def _allowed(self, tilt: Tensor) -> Tensor:
        folded = torch.minimum(tilt, 180.0 - tilt)
        return folded >= self.limit_tilt if self.limit_tilt > 0 else folded <= -self.limit_tilt

    def whole_grid(self, grid: OrientationGrid, particles: NDArray[np.int64], symmetry: str) -> Neighbourhoods:
        """For each particle the orientations of a grid that its priors allow; the likeliest one where none is."""
        angles = self._angles(grid, grid.orientations, symmetry)
        log_prior, allowed = self._judge(particles[:, None], angles[:, None])
        allowed[torch.arange(len(particles)), log_prior.argmax(1)] = True
        pose, place = torch.nonzero(allowed, as_tuple=True)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), allowed.sum(1).cumsum(0)])
        return Neighbourhoods(starts, grid.orientations[place], log_prior[pose, place])

    def restrict(
        self, near: Neighbourhoods, grid: OrientationGrid, particles: NDArray[np.int64], symmetry: str
    ) -> Neighbourhoods:
        """The orientations of each particle's list that limits and priors allow; the likeliest one where none is.

        grid: of the order and perturbation that the lists' numbers belong to.
        """
        if not (self.limit_tilt or self.of_particles):
            return near
        counts = near.starts.diff()
        owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
        angles = self._angles(grid, near.orientations, symmetry)
        log_prior, allowed = self._judge(particles[owner.numpy()], angles)
        if self.limit_tilt:
            allowed &= self._allowed(angles[0, :, 0])
        total = near.log_prior + log_prior
        allowed[_best_of_each(total, near.starts, allowed)] = True
        kept = torch.zeros(len(counts), dtype=torch.int64).index_add_(0, owner, allowed.to(torch.int64))
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])
        return Neighbourhoods(starts, near.orientations[allowed], total[allowed])

    def _angles(self, grid: OrientationGrid, numbers: Int[Tensor, "r"], symmetry: str) -> Float[Tensor, "mates r 2"]:
        """Tilt and psi of orientations and of their symmetry mates, where these differ."""
        rotations = grid.rotations(numbers)
        # turns about z change neither
        mates = [one for one in symmetry_matrices(symmetry) if abs(float(one[2, 2]) - 1.0) > 1e-9]
        group = torch.stack([torch.eye(3, dtype=torch.float64), *mates])
        _, tilt, psi = matrix_to_euler(rotations @ group[:, None])
        return torch.stack([tilt, psi], -1)

    def _judge(self, particles: NDArray[np.int64], angles: Tensor) -> tuple[Tensor, Tensor]:
        """Log-prior of the likeliest mate and whether any is within the cutoff, in the shape of particles x angles."""
        shape = torch.broadcast_shapes(particles.shape, angles.shape[1:-1])
        total = torch.zeros(angles.shape[0], *shape, dtype=torch.float64)
        allowed = torch.ones(total.shape, dtype=torch.bool)
        pairs = ((self.tilt, self.sigma_tilt, 0), (self.psi, self.sigma_psi, 1))
        for expected, sigma, which in pairs:
            if expected is not None and sigma > 0:
                away = angles[..., which] - torch.from_numpy(expected[particles])
                away = (torch.remainder(away + 180.0, 360.0) - 180.0) / sigma
                total = total - 0.5 * away.square()
                allowed &= away.abs() <= _CUTOFF
        return total.amax(0), allowed.any(0)


def _best_of_each(values: Tensor, starts: Tensor, allowed: Tensor) -> Tensor:
    """Place of the largest value of each list of which nothing is allowed."""
    places = []
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if last > first and not bool(allowed[first:last].any()):
            places.append(first + int(values[first:last].argmax()))
    return torch.tensor(places, dtype=torch.int64)


def nearby(
    order: int,
    poses: Float[Tensor, "n 3 3"],
    sigma: float,
    perturbation: Float[Tensor, "3 3"],
    relaxed: str = "C1",
) -> Neighbourhoods:
    """Orientations near each pose, and near its mates in a symmetry that the map only seems to have (`relaxed`)."""
    group = symmetry_matrices(relaxed)
    around = (poses[:, None] @ group).reshape(-1, 3, 3)
    near = neighbourhoods(order, around, sigma, perturbation)
    return Neighbourhoods(near.starts[:: len(group)], near.orientations, near.log_prior)
