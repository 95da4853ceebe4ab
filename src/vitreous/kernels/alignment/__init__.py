"""How well each frame fits the sum of the others, and which way to move it: value, gradient and curvature.

For aligned frames A_f = F_f exp(2 pi i k.d_f) of one patch and the sum S of them all, the leave-one-out
cross-correlation C_f(u) = sum_k w Re[A_f conj(S - A_f) exp(2 pi i k.u)] peaks at what is missing in the
displacement d_f. Its first two derivatives at u = 0 come from one pass over the coefficients, so that no
correlation map need be made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.alignment import cpu, reference


@dataclass(frozen=True)
class Derivatives:
    """Leave-one-out correlation at the present displacements, axes (x, y), pixels of the full-size movie.

    value (p, f); gradient (p, f, 2); hessian (p, f, 2, 2) (negative at a peak); noise (p, f, 2, 2): covariance
    of the gradient if all phases were random. All float64 on the CPU.
    """

    value: Float[Tensor, "p f"]
    gradient: Float[Tensor, "p f 2"]
    hessian: Float[Tensor, "p f 2 2"]
    noise: Float[Tensor, "p f 2 2"]


def leave_one_out(
    frames_ft: Complex[Tensor, "p f height half"],
    weights: Float[Tensor, "height half"],
    ky: Float[Tensor, "height"],
    kx: Float[Tensor, "half"],
    displacements: Float[Tensor, "p f 2"],
) -> Derivatives:
    """Leave-one-out correlation of each frame of each patch with derivatives.

    weights: real, with the Hermitian multiplicity (2 inside, 1 on self-conjugate columns) folded in. ky, kx:
    cycles per movie pixel. displacements: (x, y) movie pixels, content of frame f relative to the reference.
    The reference form is float64; on the CPU a fused numba loop, elsewhere torch in float32.
    """
    if frames_ft.device.type == "cpu":
        sums = cpu.sums(frames_ft, weights, ky, kx, displacements)
    else:
        sums = reference.sums(frames_ft, weights, ky, kx, displacements)
    return _derivatives(sums)


def leave_one_out_reference(
    frames_ft: Complex[Tensor, "p f height half"],
    weights: Float[Tensor, "height half"],
    ky: Float[Tensor, "height"],
    kx: Float[Tensor, "half"],
    displacements: Float[Tensor, "p f 2"],
) -> Derivatives:
    """The obvious float64 form of `leave_one_out`."""
    return _derivatives(reference.sums(frames_ft.to(torch.complex128), weights, ky, kx, displacements))


def _derivatives(sums: Float[Tensor, "p f 9"]) -> Derivatives:
    """sums: value, gx, gy, hxx, hyy, hxy, jxx, jyy, jxy."""
    s = sums.to(device="cpu", dtype=torch.float64)

    def symmetric(xx: int, yy: int, xy: int) -> Tensor:
        return s[..., [xx, xy, xy, yy]].unflatten(-1, (2, 2))

    return Derivatives(s[..., 0], s[..., 1:3], symmetric(3, 4, 5), symmetric(6, 7, 8))
