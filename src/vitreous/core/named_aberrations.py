"""Aberrations beyond defocus, astigmatism and Cs: beam tilt, higher Zernike terms, anisotropic magnification.

Terms are rho^n cos(m theta) and rho^n sin(m theta), rho = |k| in 1/A, coefficients in rad A^n, named as teamtomo's
torch-ctf and Leopard-EM name them: Z31c, Z31s (coma), Z33c, Z33s (trefoil); Z42c.., Z44c, Z44s (tetrafoil), Z60.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError

Matrix2 = tuple[tuple[float, float], tuple[float, float]]
_IDENTITY: Matrix2 = ((1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True)
class Aberrations:
    """beam_tilt: (x, y) mrad. odd, even: coefficients by name. magnification: takes measured (kx, ky) to true ones."""

    beam_tilt: tuple[float, float] = (0.0, 0.0)
    odd: Mapping[str, float] = field(default_factory=dict)
    even: Mapping[str, float] = field(default_factory=dict)
    magnification: Matrix2 = _IDENTITY

    @property
    def is_odd(self) -> bool:
        """Whether the transfer function is complex: then an image and its inversion are transferred differently."""
        return any(self.beam_tilt) or any(self.odd.values())

    def true_frequencies(self, ky: Tensor, kx: Tensor) -> tuple[Tensor, Tensor]:
        """(ky, kx) of the specimen that are found at measured (ky, kx) of the image."""
        (a, b), (c, d) = self.magnification
        return c * kx + d * ky, a * kx + b * ky


def zernike_phase(terms: Mapping[str, float], rho: Tensor, theta: Tensor) -> Tensor:
    """Sum of the named terms, radians. Raises InputError for a name that is none or a term of impossible order."""
    total = torch.zeros_like(rho)
    for name, coefficient in terms.items():
        match = re.fullmatch(r"Z(\d)(\d)([cs]?)", name)
        n, m = (int(match[1]), int(match[2])) if match else (0, 1)
        if match is None or m > n or (n - m) % 2 or (m > 0) != bool(match[3]):
            raise InputError(f"Zernike term {name}", "is no term", "Use names such as Z31c, Z33s, Z40 or Z44c.")
        angular = torch.sin(m * theta) if match[3] == "s" else torch.cos(m * theta)
        total = total + coefficient * rho**n * angular
    return total


def even_phase(aberrations: Aberrations, rho: Tensor, theta: Tensor) -> Tensor:
    """What is taken off chi, radians."""
    return zernike_phase(aberrations.even, rho, theta)


def odd_phase(aberrations: Aberrations, microscope: Microscope, rho: Tensor, theta: Tensor) -> Tensor:
    """The odd part W of the wave aberration, radians; the image's transform carries the factor exp(-i W).

    Beam tilt t is coma: W = 2 pi Cs lambda^2 k^2 (k . t). Zemlin et al. (1978) Ultramicroscopy 3, 49.
    """
    coma = 2.0 * math.pi * microscope.cs * 1e7 * microscope.wavelength**2 * 1e-3
    x, y = aberrations.beam_tilt
    tilt = coma * rho**3 * (x * torch.cos(theta) + y * torch.sin(theta))
    return tilt + zernike_phase(aberrations.odd, rho, theta)
