"""FSC of two half-maps: unmasked, masked, and corrected for what the mask adds.

Chen et al. (2013) Ultramicroscopy 135, 24: phases beyond a shell are randomised in both halves; whatever
correlation is left there after masking comes from the mask, and is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.fourier import shell_indices, to_fourier, to_real
from vitreous.core.fsc import fsc, fsc_ft, resolution_shell, shell_resolution

# The correction starts this many shells after randomisation does: the step itself leaks over its neighbours.
_SHELLS_AFTER_RANDOMISATION = 2


@dataclass(frozen=True)
class HalfMapFsc:
    """Curves over shells 0 .. box//2 (float64). Without a mask all but `randomised` are the same curve.

    randomised_from: first shell with random phases (0: none were randomised).
    """

    unmasked: Float[Tensor, "n_shells"]
    masked: Float[Tensor, "n_shells"]
    randomised: Float[Tensor, "n_shells"]
    corrected: Float[Tensor, "n_shells"]
    randomised_from: int
    box: int
    voxel_size: float

    def shell(self, threshold: float = 0.143) -> int:
        """Last shell before the corrected curve falls below threshold."""
        return resolution_shell(self.corrected, threshold)

    def resolution(self, threshold: float = 0.143) -> float:
        """Resolution in A at a threshold of the corrected curve."""
        return shell_resolution(self.shell(threshold), self.box, self.voxel_size)


def randomise_phases(
    map_ft: Complex[Tensor, "box box half"], from_shell: int, generator: torch.Generator
) -> Complex[Tensor, "box box half"]:
    """Keep amplitudes, draw new phases at and beyond a shell (those of a real white-noise map: Hermitian)."""
    box = map_ft.shape[0]
    noise = torch.randn(box, box, box, generator=generator, dtype=torch.float64).to(map_ft.device)
    noise_ft = torch.fft.rfftn(noise)
    phases = noise_ft / noise_ft.abs().clamp(min=1e-30)
    beyond = shell_indices(box, 3, device=map_ft.device) >= from_shell
    return torch.where(beyond, map_ft.abs() * phases.to(map_ft.dtype), map_ft)


def half_map_fsc(
    half1: Float[Tensor, "box box box"],
    half2: Float[Tensor, "box box box"],
    voxel_size: float,
    mask: Float[Tensor, "box box box"] | None = None,
    *,
    randomise_below: float = 0.8,
    randomise_from_resolution: float | None = None,
    generator: torch.Generator | None = None,
) -> HalfMapFsc:
    """FSC curves of two half-maps in a mask, corrected by phase randomisation.

    randomise_below: phases are randomised from the shell where the unmasked FSC, past its best, falls below this;
    randomise_from_resolution: or from this resolution (A). generator: default seeded with 0.
    Raises ValueError where shapes differ.
    """
    if half1.shape != half2.shape or (mask is not None and mask.shape != half1.shape):
        raise ValueError("half-maps and mask differ in shape")
    box = half1.shape[-1]
    a, b = half1.to(torch.float64), half2.to(torch.float64)
    a_ft, b_ft = to_fourier(a, 3), to_fourier(b, 3)
    unmasked = fsc_ft(a_ft, b_ft, box)
    if mask is None:
        return HalfMapFsc(unmasked, unmasked, torch.zeros_like(unmasked), unmasked, 0, box, voxel_size)
    soft = mask.to(torch.float64)
    masked = fsc(a * soft, b * soft)
    if randomise_from_resolution is not None:
        start = round(box * voxel_size / randomise_from_resolution)
    else:
        start = _fall(unmasked, randomise_below)
    start = max(1, min(start, box // 2))
    rng = generator if generator is not None else torch.Generator().manual_seed(0)
    shape = tuple(half1.shape)
    noise = [to_real(randomise_phases(ft, start, rng), shape, 3) for ft in (a_ft, b_ft)]
    randomised = fsc(noise[0] * soft, noise[1] * soft)
    corrected = corrected_fsc(masked, randomised, start)
    return HalfMapFsc(unmasked, masked, randomised, corrected, start, box, voxel_size)


def _fall(curve: Float[Tensor, "n_shells"], threshold: float) -> int:
    """First shell below a threshold beyond the best one; 1 where the curve is never as high.

    The lowest shells can be below it as well: the origin is one number, and the CTF leaves little beside it. Were
    phases random from there on, nothing would be left that a mask could carry to higher shells, and nothing taken off.
    """
    best = 1 + int(curve[1:].argmax())
    if curve[best] < threshold:
        return 1
    below = torch.nonzero(curve[best:] < threshold)
    return best + int(below[0]) if below.numel() else len(curve) - 1


def corrected_fsc(
    masked: Float[Tensor, "*batch n_shells"], randomised: Float[Tensor, "*batch n_shells"], randomised_from: int
) -> Float[Tensor, "*batch n_shells"]:
    """(masked - randomised) / (1 - randomised) from two shells after randomisation starts; masked before."""
    shells = torch.arange(masked.shape[-1], device=masked.device)
    true = (masked - randomised) / (1.0 - randomised).clamp(min=1e-6)
    true = torch.where(randomised > masked, torch.zeros_like(true), true)
    return torch.where(shells >= randomised_from + _SHELLS_AFTER_RANDOMISATION, true, masked)
