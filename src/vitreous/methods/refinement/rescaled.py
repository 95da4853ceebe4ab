"""Particle images at a coarser pixel, for work that needs no fine detail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.core.fourier import rescale
from vitreous.data.images import ImageSource
from vitreous.methods.refinement.particles import ParticleSet

_SMALLEST = 32


class RescaledSource:
    """Images of another source, Fourier-cropped to a smaller box over the same field of view."""

    def __init__(self, images: ImageSource, box: int) -> None:
        self._images = images
        self._box = box

    @property
    def box(self) -> int:
        """Side of the cropped images in pixels."""
        return self._box

    @property
    def pixel_size(self) -> float:
        """Pixel size in A after cropping."""
        return self._images.pixel_size * self._images.box / self._box

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: Int[np.ndarray, "n"]) -> Float[Tensor, "n box box"]:
        return rescale(self._images[indices], (self._box, self._box))


def rescaled_for(particles: ParticleSet, resolution: float) -> ParticleSet:
    """The particles in the smallest even box that holds detail to `resolution` (A) with a third in hand."""
    wanted = 2 * int(np.ceil(1.33 * particles.box * particles.pixel_size / resolution))
    box = max(_SMALLEST, wanted)
    if box >= particles.box:
        return particles
    return replace(particles, images=RescaledSource(particles.images, box))
