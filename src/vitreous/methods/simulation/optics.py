"""From potential to contrast: the weak-phase image with defocus, astigmatism, envelopes and damage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.dose import critical_exposure
from vitreous.core.fourier import radius_grid
from vitreous.core.scattering import interaction_constant


@dataclass(frozen=True)
class Envelope:
    """What dampens contrast: b_factor (A^2), focal_spread (A, standard deviation), convergence (mrad, half angle)."""

    b_factor: float = 10.0
    focal_spread: float = 60.0
    convergence: float = 0.02


@dataclass(frozen=True)
class Focus:
    """Defocus of one micrograph: u >= v (A), angle (deg from x to the U axis), phase_shift (deg)."""

    u: float
    v: float
    angle: float = 0.0
    phase_shift: float = 0.0

    def raised(self, height: float) -> Focus:
        """The same at a height (A) that adds to the defocus."""
        return Focus(self.u + height, self.v + height, self.angle, self.phase_shift)


def envelope(k: Tensor, mean_defocus: float, microscope: Microscope, damping: Envelope) -> Tensor:
    """Fraction of the contrast left at frequencies k (1/A) by temporal and spatial coherence and a B factor.

    Frank (1973) Optik 38, 519; Wade and Frank (1977) Optik 49, 81.
    """
    lam = microscope.wavelength
    temporal = 0.5 * (math.pi * lam * damping.focal_spread) ** 2 * k**4
    gradient = microscope.cs * 1e7 * lam**3 * k**3 - mean_defocus * lam * k
    spatial = (math.pi * damping.convergence * 1e-3 / lam) ** 2 * gradient**2
    return torch.exp(-temporal - spatial - 0.25 * damping.b_factor * k.square())


def contrast_transfer(
    shape: tuple[int, int], pixel_size: float, microscope: Microscope, focus: Focus, damping: Envelope
) -> Tensor:
    """Multiplier that takes the transform of a projected potential (V A) to that of the image's contrast.

    The image is 1 + contrast: -2 sigma CTF E, so underfocused protein comes out dark. float32, rfft grid.
    """
    defocus = Defocus(
        *(torch.tensor([value], dtype=torch.float64) for value in (focus.u, focus.v, focus.angle, focus.phase_shift))
    )
    transfer = ctf(shape, pixel_size, microscope, defocus)[0]
    fading = envelope(radius_grid(shape, pixel_size), 0.5 * (focus.u + focus.v), microscope, damping)
    return -2.0 * interaction_constant(microscope.voltage) * transfer * fading.to(torch.float32)


def damage(k: Tensor, start: float, end: float, voltage: float) -> Tensor:
    """Mean fraction of the signal amplitude left at k (1/A) between exposures start and end (e/A^2).

    The mean of exp(-N / (2 Ne(k))) over the interval; Grant and Grigorieff (2015) eLife 4, e06980.
    """
    fading = 2.0 * critical_exposure(k, voltage)
    if end <= start:
        return torch.exp(-start / fading)
    mean = fading / (end - start) * (torch.exp(-start / fading) - torch.exp(-end / fading))
    return torch.where(torch.isfinite(fading), mean, torch.ones_like(mean))


def damage_of_sum(k: Tensor, start: float, end: float, voltage: float, *, weighted: bool) -> Tensor:
    """What an exposure's sum keeps of the signal amplitude at k (1/A), its noise taken as 1.

    weighted: frames weighted by q / sqrt(sum q^2), q their own fraction left, as motion correction does: the sum keeps
    the root of the mean of q^2. Otherwise the mean of q. q^2 fades twice as fast: it is the mean of q at twice the
    exposure.
    """
    if not weighted:
        return damage(k, start, end, voltage)
    return damage(k, 2.0 * start, 2.0 * end, voltage).sqrt()
