"""Errors of defocus and pose against what is known to be true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.rotations import angular_distance

_CLEAR_ASTIGMATISM = 300.0  # A: below, the direction of astigmatism is hardly defined


@dataclass(frozen=True)
class DefocusErrors:
    """Over micrographs. defocus_rms: A, of the mean of U and V; axes_rms: A, of U and V each; astigmatism_rms: A.

    angle_rms, angle_max: degrees, of micrographs with more than 300 A of astigmatism (NaN where there are none).
    """

    defocus_rms: float
    axes_rms: float
    astigmatism_rms: float
    angle_rms: float
    angle_max: float


def defocus_errors(found: Float[np.ndarray, "n 3"], true: Float[np.ndarray, "n 3"]) -> DefocusErrors:
    """Compare (defocus_u, defocus_v, defocus_angle) of n micrographs with the truth."""
    difference = found - true
    axes = difference[:, :2]
    mean, spread = axes.mean(1), axes[:, 0] - axes[:, 1]
    clear = true[:, 0] - true[:, 1] > _CLEAR_ASTIGMATISM
    angle = np.abs((difference[clear, 2] + 90.0) % 180.0 - 90.0)  # an axis is the same after half a turn
    return DefocusErrors(
        defocus_rms=_rms(mean),
        axes_rms=_rms(axes),
        astigmatism_rms=_rms(spread),
        angle_rms=_rms(angle),
        angle_max=float(angle.max()) if angle.size else float("nan"),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else float("nan")


def pose_errors(
    found: Float[Tensor, "n 3 3"], true: Float[Tensor, "n 3 3"], to_truth: Float[Tensor, "3 3"], group: Tensor
) -> Float[Tensor, "n"]:
    """Angle in degrees between found and true poses, by the nearest symmetry-equivalent.

    found: poses about the found map's axes; group (m, 3, 3): its point group; to_truth: takes the found map's
    coordinates to the truth's (`Alignment.matrix`), a reflection where the map has the other hand. A projection
    of a mirrored map A is that of the true one at F A M^T, F = diag(1, 1, -1): it reverses the beam, which the sum
    along it does not see.
    """
    mirrored = bool(torch.linalg.det(to_truth) < 0)
    flip = torch.diag(torch.tensor([1.0, 1.0, -1.0 if mirrored else 1.0], dtype=found.dtype))
    best = torch.full((len(found),), 180.0, dtype=found.dtype)
    for operator in group.to(found.dtype):
        turned = flip @ found @ operator @ to_truth.T.to(found.dtype)
        best = torch.minimum(best, angular_distance(turned, true))
    return best


def centre_shifts(true: Float[Tensor, "n 3 3"], shift: Float[Tensor, "3"]) -> Float[Tensor, "n 2"]:
    """Where, in A (x, y) from the truth's centre, images at true poses show the found map's centre."""
    return (true @ shift.to(true.dtype))[:, :2]
