"""Phase aberrations of the lens as Zernike polynomials of the spatial frequency, in RELION's numbering.

Antisymmetric (odd) ones - beam tilt, coma, trefoil - turn the phases of an image, which is corrected by turning them
back. Symmetric (even) ones - tetrafoil, an error in Cs - belong to the CTF. Frequencies are in 1/A.
Zivanov, Nakane, Scheres (2020) IUCrJ 7, 253; numbering and signs as observed in `relion_reconstruct`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def odd_indices(number: int) -> tuple[int, int]:
    """(m, n) of odd coefficient `number`: n = 1, 1, 3, 3, 3, 3, 5..., m from -n to n in steps of two."""
    k = (math.isqrt(1 + 4 * number) - 1) // 2
    n = 2 * k + 1
    return 2 * (number - k * (k + 1)) - n, n


def even_indices(number: int) -> tuple[int, int]:
    """(m, n) of even coefficient `number`: n = 0, 2, 2, 2, 4..., m from -n to n in steps of two."""
    k = math.isqrt(number)
    return 2 * (number - k * k) - 2 * k, 2 * k


def zernike(m: int, n: int, ky: Tensor, kx: Tensor) -> Float[Tensor, "*grid"]:
    """Z = R_n^|m|(rho) cos(m phi), or sin(|m| phi) for m < 0, at rho = |k| and phi = atan2(ky, kx)."""
    rho, phi = torch.hypot(ky, kx), torch.atan2(ky, kx)
    order = abs(m)
    radial = torch.zeros_like(rho)
    for k in range((n - order) // 2 + 1):
        below = math.factorial(k) * math.factorial((n + order) // 2 - k) * math.factorial((n - order) // 2 - k)
        radial = radial + (-1) ** k * math.factorial(n - k) / below * rho ** (n - 2 * k)
    return radial * (torch.cos(order * phi) if m >= 0 else torch.sin(order * phi))


def odd_phase(coefficients: Sequence[float], ky: Tensor, kx: Tensor) -> Float[Tensor, "*grid"]:
    """Phase in radians that the odd polynomials add to an image's transform."""
    return _sum(coefficients, odd_indices, ky, kx)


def even_phase(coefficients: Sequence[float], ky: Tensor, kx: Tensor) -> Float[Tensor, "*grid"]:
    """Phase in radians that the even polynomials take from the CTF's."""
    return _sum(coefficients, even_indices, ky, kx)


def _sum(
    coefficients: Sequence[float], indices: Callable[[int], tuple[int, int]], ky: Tensor, kx: Tensor
) -> Float[Tensor, "*grid"]:
    total = torch.zeros(torch.broadcast_shapes(ky.shape, kx.shape), dtype=ky.dtype, device=ky.device)
    for number, coefficient in enumerate(coefficients):
        if coefficient:
            total = total + coefficient * zernike(*indices(number), ky, kx)
    return total


def beam_tilt_phase(
    tilt: tuple[float, float], cs: float, wavelength: float, ky: Tensor, kx: Tensor
) -> Float[Tensor, "*grid"]:
    """Phase in radians that a beam tilt (x, y) in mrad adds: -2 pi Cs lambda^2 k^2 (tilt . k); cs in mm."""
    strength = -2.0 * math.pi * cs * 1e7 * wavelength**2 * 1e-3
    return strength * (ky.square() + kx.square()) * (tilt[0] * kx + tilt[1] * ky)
