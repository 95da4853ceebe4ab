"""Rotations: RELION's ZYZ Euler angles, matrices, distances.

A matrix takes volume coordinates (x, y, z) to the projection's frame; the slice's point (x, y, 0) reads
the volume's transform at A^T (x, y, 0). Rotating a volume by R turns the pose A that fits an image into
A R^T.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def euler_to_matrix(
    rot: Float[Tensor, "*batch"], tilt: Float[Tensor, "*batch"], psi: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """ZYZ Euler angles in degrees to matrices, (x, y, z) order of components.

    Heymann, Chagoyen and Belnap (2005) J. Struct. Biol. 151, 196.
    """
    rot, tilt, psi = torch.broadcast_tensors(rot, tilt, psi)
    ca, sa = torch.cos(torch.deg2rad(rot)), torch.sin(torch.deg2rad(rot))
    cb, sb = torch.cos(torch.deg2rad(tilt)), torch.sin(torch.deg2rad(tilt))
    cg, sg = torch.cos(torch.deg2rad(psi)), torch.sin(torch.deg2rad(psi))
    rows = [
        torch.stack([cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb], -1),
        torch.stack([-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb], -1),
        torch.stack([sb * ca, sb * sa, cb], -1),
    ]
    return torch.stack(rows, -2)


def matrix_to_euler(matrices: Float[Tensor, "*batch 3 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices to (rot, tilt, psi) in degrees, tilt in 0..180; at the poles rot is 0."""
    sin_tilt = torch.hypot(matrices[..., 0, 2], matrices[..., 1, 2])
    pole = sin_tilt < 1e-8
    tilt = torch.atan2(sin_tilt, matrices[..., 2, 2])
    rot = torch.atan2(matrices[..., 2, 1], matrices[..., 2, 0])
    psi = torch.atan2(matrices[..., 1, 2], -matrices[..., 0, 2])
    # At a pole only rot + psi (tilt 0) or psi - rot (tilt 180) is defined; all of it goes into psi.
    pole_psi = torch.atan2(-matrices[..., 2, 2].sign() * matrices[..., 1, 0], matrices[..., 1, 1])
    rot = torch.where(pole, torch.zeros_like(rot), rot)
    psi = torch.where(pole, pole_psi, psi)
    return torch.rad2deg(rot), torch.rad2deg(tilt), torch.rad2deg(psi)


def angular_distance(a: Float[Tensor, "*batch 3 3"], b: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle in degrees of the rotation that takes a to b."""
    # |A - B|_F = 2 sqrt(2) sin(angle/2): exact for small angles, where acos(trace) is not.
    chord = torch.linalg.matrix_norm(a - b) / (2.0 * 2.0**0.5)
    return torch.rad2deg(2.0 * torch.asin(chord.clamp(max=1.0)))


def random_rotations(n: int, generator: torch.Generator) -> Float[Tensor, "n 3 3"]:
    """Rotations uniform over SO(3), float64 (normalised Gaussian quaternions)."""
    q = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return quaternion_to_matrix(q / q.norm(dim=1, keepdim=True))


def quaternion_to_matrix(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Unit quaternions (w, x, y, z) to matrices."""
    w, x, y, z = q.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def axis_angle_to_matrix(
    axis: Float[Tensor, "*batch 3"], angle: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """Rotation by angle (degrees) about axis (x, y, z), right-handed."""
    unit = axis / axis.norm(dim=-1, keepdim=True)
    half = torch.deg2rad(angle) / 2
    return quaternion_to_matrix(torch.cat([torch.cos(half)[..., None], torch.sin(half)[..., None] * unit], -1))
