"""Where the expectation step looks: coarse orientations and shifts and their oversampled children."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.rotations import axis_angle_to_matrix


@dataclass(frozen=True)
class Sampling:
    """The grid of one iteration.

    rotations: (R, 3, 3) coarse; fine_rotations: (R * a, 3, 3), the a children of coarse rotation r being rows
    r * a ... ; shifts: (T, 2) coarse (y, x) in pixels about each particle's rounded origin; fine_shifts: (T * b, 2)
    likewise; angular_step: degrees between coarse rotations.
    """

    rotations: Float[Tensor, "r 3 3"]
    fine_rotations: Float[Tensor, "fine 3 3"]
    shifts: Float[Tensor, "t 2"]
    fine_shifts: Float[Tensor, "fine_t 2"]
    angular_step: float

    @property
    def orientation_children(self) -> int:
        """Fine rotations for each coarse one."""
        return self.fine_rotations.shape[0] // self.rotations.shape[0]

    @property
    def shift_children(self) -> int:
        """Fine shifts for each coarse one."""
        return self.fine_shifts.shape[0] // self.shifts.shape[0]

    def in_words(self, n_classes: int, rotations: str = "orientations") -> str:
        """How much there is to compare, RELION's hidden variable sampling points; rotations: what they are called."""
        r, t = len(self.rotations), len(self.shifts)
        finer = self.orientation_children * self.shift_children
        return (
            f"{n_classes} classes x {r} {rotations} x {t} shifts = {n_classes * r * t} samples each, "
            f"the likely ones {finer} times finer"
        )

    def coarse_shell(self, box: int, pixel_size: float, diameter: float) -> int:
        """Shell (Fourier pixels) beyond which the coarse step is too wide to be worth comparing.

        A step turns the particle's rim by step * diameter / 2; detail finer than that (with 20% in hand)
        belongs to the fine pass. diameter in A.
        """
        rim = math.radians(self.angular_step) * diameter / 2 / 1.2
        return max(4, math.ceil(box * pixel_size / rim))


def shift_grid(
    offset_range: float, step: float, oversampling: int, perturbation: tuple[float, float] = (0.0, 0.0)
) -> tuple[Float[Tensor, "t 2"], Float[Tensor, "fine_t 2"]]:
    """Coarse shifts on a square grid within a circle, and 4^oversampling children of each (pixels).

    perturbation: (y, x) displacement of the grid as a fraction of the step.
    """
    reach = math.floor(offset_range / step + 1e-9)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64) * step
    grid = torch.cartesian_prod(axis, axis)
    coarse = grid[grid.norm(dim=1) <= offset_range + 1e-6] + step * torch.tensor(perturbation, dtype=torch.float64)
    parts = 2**oversampling
    inside = (torch.arange(parts, dtype=torch.float64) + 0.5) / parts - 0.5
    children = torch.cartesian_prod(inside, inside) * step
    return coarse, (coarse[:, None] + children).flatten(0, 1)


def in_plane_sampling(
    psi_step: float,
    offset_range: float,
    offset_step: float,
    *,
    oversampling: int = 1,
    generator: torch.Generator | None = None,
    perturb: float = 0.5,
) -> Sampling:
    """Rotations about z every psi_step degrees (rounded to divide 360), for 2D classes.

    With a generator the grids are displaced by up to `perturb` steps, so that no iteration samples the same points.
    """
    n = max(1, round(360.0 / psi_step))
    step = 360.0 / n
    random = (torch.rand(3, generator=generator, dtype=torch.float64) - 0.5) * perturb if generator else torch.zeros(3)
    psi = (torch.arange(n, dtype=torch.float64) + random[0]) * step
    parts = 2**oversampling
    inside = ((torch.arange(parts, dtype=torch.float64) + 0.5) / parts - 0.5) * step
    coarse, fine = shift_grid(offset_range, offset_step, oversampling, (float(random[1]), float(random[2])))
    return Sampling(in_plane(psi), in_plane((psi[:, None] + inside).flatten()), coarse, fine, step)


def in_plane(psi: Float[Tensor, "n"]) -> Float[Tensor, "n 3 3"]:
    """Poses with rot = tilt = 0 and this psi (degrees): a pose turns axes, hence the sign."""
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(len(psi), 3)
    return axis_angle_to_matrix(axis, -psi.to(torch.float64))
