"""Solvent flattening: what lies outside the particle is set to zero in a reference."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from vitreous.core.masks import soft_sphere


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
