"""Particle images made ready for comparison: norm, shift, mask, transform, whitening."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import from_shells, to_fourier, to_real
from vitreous.core.masks import soft_sphere
from vitreous.kernels.compare import WhitenedImages
from vitreous.kernels.place import place
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet, Poses

_FIELDS = 64  # white noise fields kept for filling what masks leave out


@dataclass(frozen=True)
class NoiseModel:
    """Noise by optics group and shell.

    sigma2: (n_groups, box // 2 + 1), half the mean squared modulus of the noise coefficients of an unnormalised
    transform: the variance of a real or imaginary part (Scheres 2012).
    """

    sigma2: Float[Tensor, "groups shells"]


@dataclass(frozen=True)
class PreparedImages:
    """A batch ready for expectation and maximisation.

    masked: for comparison (DC weight zero: additive constants do not count); unmasked: for the sums;
    shell_power: float64 (n, box // 2 + 1) sum of |X|^2 of the masked images over each half-plane shell;
    centres: (n, 2) whole-pixel shifts (y, x) already applied; sigma2: (n, box // 2 + 1) noise of each image;
    gain_share: (n, box // 2 + 1) see undo_premultiplication (None: one).
    """

    masked: WhitenedImages
    unmasked: WhitenedImages
    shell_power: Float[Tensor, "n shells"]
    centres: NDArray[np.float64]
    sigma2: Float[Tensor, "n shells"]
    gain_share: Float[Tensor, "n shells"] | None = None

    def take(self, members: NDArray[np.int64]) -> PreparedImages:
        """Some of the images."""
        chosen = torch.from_numpy(members).to(self.masked.data.device)
        return PreparedImages(
            WhitenedImages(self.masked.data[chosen], self.masked.half_power[chosen]),
            WhitenedImages(self.unmasked.data[chosen], self.unmasked.half_power[chosen]),
            self.shell_power[chosen],
            self.centres[members],
            self.sigma2[chosen],
            None if self.gain_share is None else self.gain_share[chosen],
        )


def undo_premultiplication(
    particles: ParticleSet, indices: NDArray[np.int64], power: Float[Tensor, "n shells"]
) -> tuple[Float[Tensor, "n shells"], Float[Tensor, "n shells"] | None]:
    """Power of images that were multiplied by their CTF (C) as if they had not been, and what that does to the signal.

    The noise in a shell of n coefficients comes out right: sum |C X|^2 n / sum C^2. Of the signal C P so much is left
    that its power has become `share` = n sum C^4 / (sum C^2)^2 times what it should be (for P alike within the shell):
    gains in likelihood count so much when the residual is taken.
    """
    done = particles.is_premultiplied(indices)
    if not bool(done.any()):
        return power, None
    everything = Coefficients.within(particles.box, particles.box // 2)
    squares = particles.transfer(indices, everything).square()
    n = everything.shell_counts().to(torch.float64)
    second, fourth = everything.shell_sums(squares), everything.shell_sums(squares.square())
    second = torch.where(done[:, None], second, n).clamp(min=1e-6).to(power.device)
    fourth = torch.where(done[:, None], fourth, n).to(power.device)
    n = n.to(power.device)
    return power * n / second, n * fourth / second.square()


def noise_images(
    noise: NoiseModel, groups: NDArray[np.int64], indices: NDArray[np.int64], box: int
) -> Float[Tensor, "n box box"]:
    """Gaussian noise of each image's group's power; always the same for the same particle.

    A few fields serve all particles in turn: they are seen outside the mask alone, where no reference has anything to
    compare them with, so that it does not matter that they are shared.
    """
    sigma2 = noise.sigma2[torch.from_numpy(groups)].cpu()
    amplitude = from_shells(2.0 * sigma2, box).sqrt().to(torch.float32) / box
    fields = _white_fields(box).index_select(0, torch.from_numpy(np.asarray(indices) % _FIELDS))
    return to_real(fields * amplitude, (box, box)).to(noise.sigma2.device)


@lru_cache(maxsize=2)
def _white_fields(box: int) -> Tensor:
    return to_fourier(torch.randn(_FIELDS, box, box, generator=torch.Generator().manual_seed(1)))


def place_images(
    particles: ParticleSet,
    indices: NDArray[np.int64],
    poses: Poses,
    mask_radius: float,
    device: torch.device,
    fill: Float[Tensor, "n box box"] | None = None,
) -> tuple[Float[Tensor, "n box box"], Float[Tensor, "n box box"], NDArray[np.float64]]:
    """Images with norm correction at their present origin, whole and masked (see `place`); and that rounded origin.

    The origin is rounded to whole pixels, which keeps the noise as it is (no interpolation); the fraction is searched
    for again.
    """
    mine = poses.take(indices)
    images = particles.images[indices].to(device)
    scale = torch.from_numpy(poses.norm.mean() / mine.norm).to(device, torch.float32)
    centres = np.round(mine.origins)
    mask = soft_sphere(particles.box, mask_radius, device=device)
    return *place(images, scale, torch.from_numpy(centres).to(device, torch.int64), mask, fill), centres


def prepare(
    particles: ParticleSet,
    indices: NDArray[np.int64],
    poses: Poses,
    noise: NoiseModel,
    coefficients: Coefficients,
    mask_radius: float,
    device: torch.device,
    *,
    zero_mask: bool = True,
    compared_shell: int = 0,
) -> PreparedImages:
    """Load and whiten a batch. mask_radius: particle radius in pixels (the soft edge lies outside it).

    zero_mask False: outside the mask stands noise like the group's, not nothing. compared_shell: shells beyond it have
    no weight in comparisons (0: all have).
    """
    fill = None if zero_mask else noise_images(noise, particles.optics_group[indices], indices, particles.box)
    images, masked, centres = place_images(particles, indices, poses, mask_radius, device, fill)
    everything = Coefficients.within(particles.box, particles.box // 2)
    m = len(coefficients)
    masked_ft = everything.gather(torch.fft.rfft2(masked))
    unmasked_ft = coefficients.gather(torch.fft.rfft2(images))
    ctf = particles.ctf(indices, coefficients)
    weight = particles.data_weight(indices, coefficients, ctf).to(device)
    sigma2 = noise.sigma2[torch.from_numpy(particles.optics_group[indices])].to(device)
    precision = 1.0 / coefficients.spread(sigma2).to(torch.float32)
    weight, half_power = weight * precision, 0.5 * ctf.to(device).square() * precision
    no_dc = torch.ones(m, device=device)
    no_dc[coefficients.shells == 0] = 0.0
    if compared_shell:
        no_dc[coefficients.shells > compared_shell] = 0.0
    power = everything.shell_sums(masked_ft.abs().square())
    power, gain_share = undo_premultiplication(particles, indices, power)
    return PreparedImages(
        WhitenedImages(masked_ft[:, :m] * (weight * no_dc), half_power * no_dc),
        WhitenedImages(unmasked_ft * weight, half_power),
        power,
        centres,
        sigma2,
        gain_share,
    )
