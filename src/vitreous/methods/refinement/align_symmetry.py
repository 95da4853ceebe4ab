"""Find the symmetry axes of a map and bring them to where the point group has them.

A rotation Q is a symmetry of the map if slices at poses A and A Q agree. So the best orientation of a group G is the
rotation R for which the map agrees with itself under R^T g R for all g: a search over SO(3) with a few slices.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import affine_transform
from torch import Tensor

from vitreous.core.rotations import axis_angle_to_matrix, random_rotations
from vitreous.core.so3 import orientation_grid
from vitreous.core.symmetry import symmetry_matrices
from vitreous.kernels.project import ProjectableVolume, prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients

_SLICES = 6
_ORDER = 2  # 15 degrees, then a local search
_BATCH = 512


def align_to_axes(
    density: Float[Tensor, "box box box"], symmetry: str, pixel_size: float, resolution: float, *, seed: int = 1
) -> tuple[Float[Tensor, "box box box"], float]:
    """Rotate a map so that its symmetry axes lie where RELION's point group has them.

    resolution (A): detail used. Returns the map and its mean correlation with its symmetry mates (1: symmetric).
    """
    box = density.shape[-1]
    shell = int(np.clip(round(box * pixel_size / resolution), 4, box // 2 - 1))
    coefficients = Coefficients.within(box, shell)
    volume = prepare_volume(density.to(torch.float32), max_radius=shell)
    generator = torch.Generator().manual_seed(seed)
    poses = random_rotations(_SLICES, generator)
    group = symmetry_matrices(symmetry).to(torch.float64)
    group = group[(group - torch.eye(3, dtype=torch.float64)).abs().amax((1, 2)) > 1e-6]
    candidates = orientation_grid(_ORDER).rotations()
    scores = torch.cat(
        [_agreement(volume, part, group, poses, coefficients.coordinates) for part in candidates.split(_BATCH)]
    )
    best, score = candidates[int(scores.argmax())], float(scores.max())
    for step in (8.0, 4.0, 2.0, 1.0, 0.5):
        axes = torch.randn(150, 3, generator=generator, dtype=torch.float64)
        turns = axis_angle_to_matrix(axes, step * torch.rand(150, generator=generator, dtype=torch.float64))
        around = turns @ best
        found = _agreement(volume, around, group, poses, coefficients.coordinates)
        if float(found.max()) > score:
            best, score = around[int(found.argmax())], float(found.max())
    return rotate_density(density, best), score


def _agreement(
    volume: ProjectableVolume, rotations: Tensor, group: Tensor, poses: Tensor, coordinates: Tensor
) -> Float[Tensor, "r"]:
    """Mean over group elements of the correlation of slices at A and at A R^T g R, for each R."""
    there = project(volume, poses, coordinates)[:, 1:]  # without DC
    mates = rotations.transpose(1, 2)[:, None] @ group @ rotations[:, None]  # (r, g, 3, 3)
    turned = poses @ mates[:, :, None]  # (r, g, slices, 3, 3)
    shape = turned.shape[:3]
    slices = project(volume, turned.reshape(-1, 3, 3), coordinates)[:, 1:].reshape(*shape, -1)
    cross = (slices * there.conj()).real.sum((2, 3))
    norm = slices.abs().square().sum((2, 3)).sqrt() * there.norm()
    return (cross / norm.clamp(min=1e-30)).mean(1)


def rotate_density(density: Float[Tensor, "box box box"], rotation: Float[Tensor, "3 3"]) -> Tensor:
    """Turn a map about its centre: what was at x (x, y, z) is afterwards at R x. Cubic splines."""
    centre = np.full(3, density.shape[-1] // 2, dtype=np.float64)
    # scipy reads the output at o from the input at M o + offset, in (z, y, x) order
    matrix = rotation.to(torch.float64).T.numpy()[::-1, ::-1]
    turned = affine_transform(density.numpy().astype(np.float64), matrix, centre - matrix @ centre, order=3)
    return torch.from_numpy(turned.astype(np.float32))


def symmetrise_density(density: Float[Tensor, "box box box"], symmetry: str) -> Float[Tensor, "box box box"]:
    """Mean of the map over the rotations of a point group."""
    matrices = symmetry_matrices(symmetry).to(torch.float64)
    return torch.stack([rotate_density(density, matrix) for matrix in matrices]).mean(0)
