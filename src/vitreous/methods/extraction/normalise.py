"""Normalise particle images by their background: plane, mean, spread, dust.

The background is what lies outside a circle around the particle. Scheres (2012) J. Struct. Biol. 180, 519,
section 2.5; behaviour held against `relion_preprocess --norm` in tests/conformance.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitreous.core.masks import distance_grid


def background_region(box: int, radius_px: float, *, device: torch.device | None = None) -> Bool[Tensor, "box box"]:
    """Pixels farther than radius_px from the centre, index box//2. Raises ValueError if fewer than 9 are left."""
    region = distance_grid(box, 2, device=device, dtype=torch.float64) > radius_px
    if int(region.sum()) < 9:
        raise ValueError(f"a background radius of {radius_px:.1f} px leaves no background in a box of {box} px")
    return region


def fit_planes(images: Float[Tensor, "n box box"], region: Bool[Tensor, "box box"]) -> Float[Tensor, "n box box"]:
    """Least-squares plane a x + b y + c of each image over region, evaluated over the box."""
    box = images.shape[-1]
    axis = torch.arange(box, device=images.device, dtype=torch.float64) - box // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    design = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # (box, box, 3)
    inside = design[region]
    # One small matrix for all images: coefficients are fixed linear functionals of the background pixels.
    solve = (torch.linalg.inv(inside.T @ inside) @ inside.T).to(images.dtype)
    coefficients = images[:, region] @ solve.T
    return (coefficients @ design.reshape(-1, 3).T.to(images.dtype)).reshape(images.shape)


def background_statistics(
    images: Float[Tensor, "n box box"], region: Bool[Tensor, "box box"]
) -> tuple[Float[Tensor, "n 1 1"], Float[Tensor, "n 1 1"]]:
    """Mean and standard deviation (population) of each image over region."""
    values = images[:, region]
    spread, mean = torch.std_mean(values, dim=1, correction=0)
    return mean[:, None, None], spread[:, None, None]


def replace_dust(
    images: Float[Tensor, "n box box"],
    region: Bool[Tensor, "box box"],
    *,
    white: float = -1.0,
    black: float = -1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n box box"]:
    """Replace pixels beyond white (above) or black (below) background deviations by background noise.

    A negative limit turns its side off. The noise is Gaussian with the background's mean and spread, drawn from
    generator (a CPU one: same seed, same bits on every device).
    """
    if white <= 0 and black <= 0:
        return images
    mean, spread = background_statistics(images, region)
    dust = torch.zeros_like(images, dtype=torch.bool)
    if white > 0:
        dust |= images - mean > white * spread
    if black > 0:
        dust |= mean - images > black * spread
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float32).to(images)
    return torch.where(dust, mean + spread * noise, images)


def normalise(
    images: Float[Tensor, "n box box"], region: Bool[Tensor, "box box"], *, ramp: bool = True
) -> Float[Tensor, "n box box"]:
    """Bring each image's background to mean 0 and standard deviation 1; ramp: take a fitted plane off first.

    An image whose background is constant (wholly outside the film, or blank) becomes zero there, not NaN.
    """
    flat = images - fit_planes(images, region) if ramp else images
    mean, spread = background_statistics(flat, region)
    tiny = torch.finfo(images.dtype).tiny
    return (flat - mean) / torch.where(spread > tiny, spread, torch.ones_like(spread))
