"""Particle images without a micrograph around them: inverted and normalised, as extraction leaves them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import to_fourier, to_real
from vitreous.core.masks import distance_grid
from vitreous.methods.simulation.exposure import Acquisition, summed_damage
from vitreous.methods.simulation.ice import IceNoise
from vitreous.methods.simulation.optics import Focus, contrast_transfer
from vitreous.methods.simulation.potential import Projector


@dataclass(frozen=True)
class Poses:
    """rotations (n, 3, 3): volume axes to image axes; offsets (n, 2): x, y in pixels from the box's centre."""

    rotations: Float[Tensor, "n 3 3"]
    offsets: Float[Tensor, "n 2"]


def resize(images: Float[Tensor, "n size size"], box: int) -> Float[Tensor, "n box box"]:
    """The middle of images, or images with zeros around them, centre on centre."""
    before = box // 2 - images.shape[-1] // 2
    after = box - images.shape[-1] - before
    return torch.nn.functional.pad(images, (before, after, before, after))


def particle_signal(
    projector: Projector, poses: Poses, focus: Focus, acquisition: Acquisition
) -> Float[Tensor, "n canvas canvas"]:
    """Noise-free images with protein white, as a fraction of the mean intensity, of the acquisition's (square) shape.

    That should be twice the box that is wanted: defocus spreads a particle over its neighbourhood. The particle
    with its offset must lie in the projector's box. Damage is that of the sum over the exposure.
    """
    shape = acquisition.shape
    a = acquisition
    transfer = -contrast_transfer(shape, a.pixel_size, a.microscope, focus, a.envelope)
    if a.damage:
        transfer = transfer * summed_damage(a, shape).to(torch.float32)
    potentials = resize(projector(poses.rotations, poses.offsets), shape[0])
    return to_real(to_fourier(potentials) * transfer, shape)


def particle_noise(
    n: int, focus: Focus, acquisition: Acquisition, rng: np.random.Generator
) -> Float[Tensor, "n canvas canvas"]:
    """Ice seen through the lens and shot noise at the dose, as a fraction of the mean intensity.

    Shot noise of so many electrons a pixel is Gaussian to a good approximation.
    """
    a = acquisition
    shape = a.shape
    transfer = contrast_transfer(shape, a.pixel_size, a.microscope, focus, a.envelope)
    images = torch.from_numpy(rng.standard_normal((n, *shape), dtype=np.float32))
    images /= (a.dose * a.pixel_size**2) ** 0.5
    for index in range(n):
        ice = IceNoise(shape, a.pixel_size, a.ice, rng).expose(a.dose)
        images[index] += torch.fft.irfft2(ice * transfer, s=shape)
    return images


def normalise(images: Float[Tensor, "n box box"], background: float = 0.75) -> Float[Tensor, "n box box"]:
    """Background (beyond `background` of the half box) to mean 0 and standard deviation 1."""
    box = images.shape[-1]
    outside = distance_grid(box) > background * box / 2
    values = images[:, outside]
    mean, spread = values.mean(1), values.std(1, correction=0)
    return (images - mean[:, None, None]) / spread.clamp(min=1e-12)[:, None, None]


def particle_images(
    projector: Projector, poses: Poses, focus: Focus, acquisition: Acquisition, *, box: int, rng: np.random.Generator
) -> Float[Tensor, "n box box"]:
    """Noisy, normalised particle images, protein white: the middle of images of the acquisition's shape."""
    images = particle_signal(projector, poses, focus, acquisition)
    images += particle_noise(len(images), focus, acquisition, rng)
    return normalise(resize(images, box))
