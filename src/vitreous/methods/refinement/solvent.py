"""Solvent flattening: what lies outside the particle is set to zero in a reference."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import from_shells, to_fourier, to_real
from vitreous.core.masks import soft_sphere

_LEAST_GAIN = 0.1  # shells damped by more are mostly noise: not raised any further before masking


def flatten_solvent(
    density: Float[Tensor, "box box box"],
    pixel_size: float,
    diameter: float,
    mask: Float[Tensor, "box box box"] | None = None,
) -> Float[Tensor, "box box box"]:
    """The density within the user's mask, or within a soft sphere of the particle's diameter (A)."""
    if mask is not None:
        return density * mask
    box = density.shape[-1]
    radius = min(diameter / (2.0 * pixel_size), box / 2 - 5)
    return density * soft_sphere(box, radius, ndim=3, dtype=density.dtype, device=density.device)


def mask_then_filter(
    density: Float[Tensor, "box box box"],
    mask: Float[Tensor, "box box box"],
    gain: Float[Tensor, "shells"],
) -> Float[Tensor, "box box box"]:
    """A density that was damped by `gain` in each shell, as it would be had it been masked before it was damped.

    A mask carries density from shells that are known to shells that are not. Where two halves share the former, both
    find it again in their noise and agree on it ever further out. What is damped last cannot hold it.
    """
    shape = (density.shape[-1],) * 3
    gain = gain.to(torch.float64)
    undamped = from_shells(1.0 / gain.clamp(min=_LEAST_GAIN), shape[0], 3).to(density)
    damped = from_shells(gain, shape[0], 3).to(density)
    masked = to_real(to_fourier(density, 3) * undamped, shape, 3) * mask.to(density)
    return to_real(to_fourier(masked, 3) * damped, shape, 3)
