"""Correlations around one place: a few positions, any orientations, as one matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.rotations import axis_angle_to_matrix, euler_to_matrix, matrix_to_euler
from vitreous.methods.matching.templates import TemplateMaker

_AT_ONCE = 64  # orientations whose templates are held


@dataclass(frozen=True)
class Local:
    """The best of a local search. position: (y, x) on the correlation map; plane: index; angles (phi, theta, psi)."""

    score: float
    position: tuple[int, int]
    angles: Float[Tensor, "3"]
    plane: int


def nearby_angles(angles: Float[Tensor, "3"], step: float, reach: float) -> Float[Tensor, "n 3"]:
    """Orientations within `reach` degrees of one, on a cubic lattice of rotation vectors `step` degrees apart."""
    count = int(reach / step + 1e-9)
    axis = torch.arange(-count, count + 1, dtype=torch.float64) * step
    vectors = torch.cartesian_prod(axis, axis, axis)
    length = vectors.norm(dim=1)
    vectors, length = vectors[length <= reach + 1e-9], length[length <= reach + 1e-9]
    axes = torch.where(length[:, None] > 0, vectors, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    pose = euler_to_matrix(*angles.to(torch.float64).unbind())
    return torch.stack(matrix_to_euler(axis_angle_to_matrix(axes, length) @ pose), 1) % 360.0


def local_search(
    image: Float[Tensor, "height width"],
    maker: TemplateMaker,
    position: tuple[int, int],
    angles: Float[Tensor, "n 3"],
    reach: int,
    offset: Float[Tensor, "positions"] | None = None,
    gain: Float[Tensor, "positions"] | None = None,
) -> Local:
    """The highest correlation at positions within `reach` pixels (a square) and any of the given orientations.

    position: (y, x) on the correlation map. Positions outside the map do not count. offset, gain: where given, the
    highest of (correlation - offset) * gain is sought instead; one value a position, in the order of rows.
    """
    box = maker.box
    top, bottom = max(0, position[0] - reach), min(image.shape[0] - box, position[0] + reach)
    left, right = max(0, position[1] - reach), min(image.shape[1] - box, position[1] + reach)
    patch = image[top : bottom + box, left : right + box]
    windows = patch.unfold(0, box, 1).unfold(1, box, 1).reshape(-1, box * box)
    width = right - left + 1
    best = Local(-torch.inf, position, angles[0], 0)
    for start in range(0, len(angles), _AT_ONCE):
        templates = maker(angles[start : start + _AT_ONCE]).reshape(-1, box * box)
        scores = templates @ windows.T
        if offset is not None and gain is not None:
            scores = (scores - offset) * gain
        index = int(scores.argmax())
        value = float(scores.reshape(-1)[index])
        if value > best.score:
            row, place = divmod(index, windows.shape[0])
            orientation, plane = divmod(row, maker.n_planes)
            where = (top + place // width, left + place % width)
            best = Local(value, where, angles[start + orientation], plane)
    return best
