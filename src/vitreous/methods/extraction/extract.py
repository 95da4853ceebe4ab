"""Particle images from a micrograph and coordinates: cut, rescale, normalise, invert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.core.fourier import rescale
from vitreous.methods.extraction.normalise import background_region, normalise, replace_dust
from vitreous.methods.extraction.windows import cut_windows

# Live float32 copies of a window during one batch: the window, its shifted copy, the transform and its crop.
_COPIES = 6


@dataclass(frozen=True)
class ExtractionRecipe:
    """How windows become particle images.

    box: side of the window in micrograph pixels. rescale: side after Fourier cropping (0: as cut).
    background_radius: of the circle outside which is background, in micrograph pixels. invert: make protein white.
    normalise, ramp: see `normalise`. white_dust, black_dust: see `replace_dust`.
    """

    box: int
    background_radius: float
    rescale: int = 0
    invert: bool = True
    normalise: bool = True
    ramp: bool = True
    white_dust: float = -1.0
    black_dust: float = -1.0

    @property
    def image_box(self) -> int:
        """Side of the images that come out."""
        return self.rescale or self.box


def default_background_radius(box: int) -> float:
    """Three quarters of the half box, in pixels."""
    return 0.75 * box / 2


def particle_images(
    windows: Float[Tensor, "n box box"], recipe: ExtractionRecipe, generator: torch.Generator | None = None
) -> Float[Tensor, "n image image"]:
    """Rescale, clean, normalise and invert windows that are cut already."""
    images = rescale(windows, (recipe.rescale, recipe.rescale)) if recipe.rescale else windows
    if recipe.normalise or recipe.white_dust > 0 or recipe.black_dust > 0:
        radius = recipe.background_radius * recipe.image_box / recipe.box
        region = background_region(recipe.image_box, radius, device=images.device)
        images = replace_dust(images, region, white=recipe.white_dust, black=recipe.black_dust, generator=generator)
        if recipe.normalise:
            images = normalise(images, region, ramp=recipe.ramp)
    return -images if recipe.invert else images


def extract(
    micrograph: Float[Tensor, "height width"],
    centres: Int[np.ndarray, "n 2"],
    recipe: ExtractionRecipe,
    *,
    memory: int = 256 << 20,
    generator: torch.Generator | None = None,
) -> Iterator[Float[Tensor, "m image image"]]:
    """Yield the images of windows around centres (y, x), in order, in batches that fit into memory (bytes)."""
    # More than some 32 MB of windows at a time falls out of every cache and gains nothing.
    budget = min(memory, 32 << 20)
    batch = max(1, budget // (4 * _COPIES * recipe.box**2))
    for start in range(0, len(centres), batch):
        windows = cut_windows(micrograph, centres[start : start + batch], recipe.box)
        yield particle_images(windows, recipe, generator)
