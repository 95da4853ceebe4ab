"""How the microscope transfers a template: one CTF for each defocus plane, with all aberrations and envelope."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.ctf import Defocus, Microscope, phase_aberration
from vitreous.core.fourier import frequency_grid
from vitreous.core.named_aberrations import Aberrations, even_phase, odd_phase


@dataclass(frozen=True)
class Lens:
    """Optics of one micrograph: defocus_u, defocus_v (A, underfocus positive), angle and phase_shift (degrees),
    b_factor (A^2), pixel_size (A)."""

    pixel_size: float
    microscope: Microscope
    defocus_u: float
    defocus_v: float
    defocus_angle: float = 0.0
    phase_shift: float = 0.0
    b_factor: float = 0.0
    aberrations: Aberrations = field(default_factory=Aberrations)


def defocus_planes(low: float, high: float, step: float) -> Float[Tensor, "planes"]:
    """Relative defoci in A from low to high in steps; the micrograph's own defocus (0) is always among them."""
    if step <= 0 or high <= low:
        return torch.zeros(1, dtype=torch.float64)
    count = int((high - low) / step + 1e-9)
    values = low + step * torch.arange(count + 1, dtype=torch.float64)
    if not bool((values.abs() < 1e-6 * step).any()):
        values = torch.cat([values, torch.zeros(1, dtype=torch.float64)]).sort().values
    return values


def transfer_planes(
    box: int, lens: Lens, planes: Float[Tensor, "planes"]
) -> Float[Tensor, "planes box half"] | Complex[Tensor, "planes box half"]:
    """CTF of each plane on the rfft grid of the box, protein dark: -sin(chi + asin(Q0)), float64 or complex128."""
    ky, kx = frequency_grid((box, box), lens.pixel_size)
    ky, kx = lens.aberrations.true_frequencies(*torch.broadcast_tensors(ky, kx))
    squared, angle = ky * ky + kx * kx, torch.atan2(ky, kx)
    planes = planes.to(torch.float64)
    same = torch.ones_like(planes)
    defocus = Defocus(
        lens.defocus_u + planes, lens.defocus_v + planes, lens.defocus_angle * same, lens.phase_shift * same
    )
    chi = phase_aberration(squared, angle, lens.microscope, defocus)
    values = -torch.sin(chi - even_phase(lens.aberrations, squared.sqrt(), angle))
    values = values * torch.exp(-0.25 * lens.b_factor * squared)
    if not lens.aberrations.is_odd:
        return values
    phase = odd_phase(lens.aberrations, lens.microscope, squared.sqrt(), angle)
    return values * torch.polar(torch.ones_like(phase), -phase)
