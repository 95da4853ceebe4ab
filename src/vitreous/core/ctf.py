"""The contrast transfer function, in RELION's convention (protein white in particle images).

CTF = +sin(chi + asin(Q0)), chi(k) = pi lambda dz(angle) k^2 - pi/2 Cs lambda^3 k^4 + phase shift, underfocus
positive. Rohou and Grigorieff (2015) J. Struct. Biol. 192, 216; checked against `relion_project`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.aberrations import even_phase
from vitreous.core.fourier import frequency_grid
from vitreous.core.microscope import Microscope as Microscope
from vitreous.core.microscope import electron_wavelength as electron_wavelength


@dataclass(frozen=True)
class Defocus:
    """Defocus of n images, each field a tensor (n,): defocus_u >= defocus_v (A, underfocus positive),
    angle (degrees from x to the U axis), phase_shift (degrees)."""

    u: Float[Tensor, "n"]
    v: Float[Tensor, "n"]
    angle: Float[Tensor, "n"]
    phase_shift: Float[Tensor, "n"]

    def __getitem__(self, index: Tensor | slice) -> Defocus:
        return Defocus(self.u[index], self.v[index], self.angle[index], self.phase_shift[index])


@dataclass(frozen=True)
class CtfTreatment:
    """How much of the CTF is in play, as RELION's options of these names say.

    phase_flipped: the images were; only_flip_phases: nothing is known of amplitudes but their sign; intact_first_peak:
    one up to the first peak, where the model is least to be trusted.
    """

    phase_flipped: bool = False
    only_flip_phases: bool = False
    intact_first_peak: bool = False

    def values(self, phase: Float[Tensor, "*grid"]) -> Float[Tensor, "*grid"]:
        """The CTF of phases (radians) from `phase_aberration`."""
        values = torch.sin(phase)
        if self.intact_first_peak:
            values = torch.where(phase.abs() < 0.5 * math.pi, 1.0, values)
        if self.phase_flipped:
            return values.abs()
        return torch.where(values < 0, -1.0, 1.0).to(values) if self.only_flip_phases else values


def phase_aberration(k_squared: Tensor, angle: Tensor, microscope: Microscope, defocus: Defocus) -> Tensor:
    """chi + asin(Q0) in radians for (n,) defoci at frequencies of shape `grid`: returns (n, *grid).

    The even aberrations, where there are any, are taken off. k_squared in 1/A^2; angle: atan2(ky, kx) in radians.
    """
    lam = microscope.wavelength
    extra = (...,) + (None,) * k_squared.dim()
    u, v, axis = defocus.u[extra], defocus.v[extra], torch.deg2rad(defocus.angle)[extra]
    dz = 0.5 * (u + v) + 0.5 * (u - v) * torch.cos(2.0 * (angle - axis))
    offset = torch.deg2rad(defocus.phase_shift)[extra] + math.asin(microscope.amplitude_contrast)
    spherical = 0.5 * math.pi * microscope.cs * 1e7 * lam**3 * k_squared**2
    phase = math.pi * lam * dz * k_squared - spherical + offset
    if any(microscope.even_zernike):
        k = k_squared.sqrt()
        phase = phase - even_phase(microscope.even_zernike, k * torch.sin(angle), k * torch.cos(angle))
    return phase


def ctf(
    shape: tuple[int, int],
    pixel_size: float,
    microscope: Microscope,
    defocus: Defocus,
    *,
    b_factor: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n height half"]:
    """CTF of n images on the rfft grid of an image of `shape`; b_factor (A^2) adds exp(-B k^2/4)."""
    device = defocus.u.device
    ky, kx = frequency_grid(shape, pixel_size, device=device)
    k_squared = ky * ky + kx * kx
    angle = torch.atan2(ky.expand_as(k_squared), kx.expand_as(k_squared))
    exact = Defocus(*(p.to(torch.float64) for p in (defocus.u, defocus.v, defocus.angle, defocus.phase_shift)))
    values = torch.sin(phase_aberration(k_squared, angle, microscope, exact))
    if b_factor:
        values = values * torch.exp(-0.25 * b_factor * k_squared)
    return values.to(dtype)
