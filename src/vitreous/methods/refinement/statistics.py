"""What the sums of an iteration say: noise, priors, signal-to-noise ratio, resolution, current size."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import Ndim, shell_mean, to_fourier
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.maximisation import Statistics
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel, place_images, undo_premultiplication


def new_noise(statistics: Statistics, box: int, previous: NoiseModel) -> NoiseModel:
    """sigma2 by group and shell from the residuals: half the mean squared modulus. Groups not seen keep theirs."""
    counts = Coefficients.within(box, box // 2).shell_counts().to(torch.float64)
    total = statistics.group_sizes[:, None] * counts
    measured = statistics.residual / (2.0 * total.clamp(min=1.0))
    floor = measured.amax(1, keepdim=True) * 1e-8
    measured = torch.maximum(measured, floor.clamp(min=1e-30))
    return NoiseModel(torch.where(statistics.group_sizes[:, None] > 0, measured, previous.sigma2))


def new_sigma_offset(statistics: Statistics, smallest: float = 0.5) -> float:
    """Spread (pixels, each axis) of origins about their prior."""
    return max(smallest, float(np.sqrt(statistics.offset_power / (2.0 * max(1, statistics.n_particles)))))


def class_distribution(statistics: Statistics) -> Float[Tensor, "classes"]:
    """Fraction of the particles in each class."""
    weights = statistics.class_weights
    return weights / weights.sum().clamp(min=1e-30)


def log_fraction(distribution: Float[Tensor, "classes"]) -> Float[Tensor, "classes"]:
    """Log-prior of classes; an empty class is not shut out for ever."""
    return torch.log(distribution.clamp(min=1e-6))


def signal_power(references: Float[Tensor, "k *box"]) -> Float[Tensor, "k n_shells"]:
    """tau2: half the mean squared modulus of each reference's coefficients, by shell (of a slice, in 3D)."""
    ndim: Ndim = 2 if references.dim() == 3 else 3
    return 0.5 * shell_mean(to_fourier(references.to(torch.float64), ndim).abs().square(), references.shape[-1], ndim)


def resolution_shell(data_vs_prior: Float[Tensor, "k n_shells"]) -> int:
    """Highest shell, over the classes, before the data weigh less than the prior (SSNR < 1)."""
    below = data_vs_prior[:, 1:] < 1.0
    n = below.shape[1]
    first = torch.where(below.any(1), below.to(torch.int64).argmax(1), torch.full((below.shape[0],), n))
    return int(first.max())


def next_max_shell(shell: int, box: int, *, incr_size: int = 10) -> int:
    """Highest shell of the next iteration: the resolution reached and incr_size beyond, at most Nyquist."""
    return min(box // 2, shell + incr_size)


def strict_shell(extent: float, resolution: float) -> int:
    """Highest shell of a box of `extent` A that may be compared, from a limit in A (0: no limit, as for the shell)."""
    return max(1, int(extent / resolution)) if resolution > 0 else 0


def initial_noise(
    particles: ParticleSet,
    poses: Poses,
    mask_radius: float,
    generator: torch.Generator,
    *,
    n_images: int = 1000,
    device: torch.device | None = None,
) -> NoiseModel:
    """Noise from the images themselves, as if there were no signal but their mean (RELION's start)."""
    where = device or torch.device("cpu")
    everything = Coefficients.within(particles.box, particles.box // 2)
    total = torch.zeros(particles.n_groups, particles.box // 2 + 1, dtype=torch.float64)
    sizes = torch.zeros(particles.n_groups, dtype=torch.float64)
    chosen = np.sort(torch.randperm(len(particles), generator=generator)[:n_images].numpy())
    mean = torch.zeros(len(everything), dtype=torch.complex128)
    for indices in np.array_split(chosen, max(1, len(chosen) // 250)):
        _, masked, _ = place_images(particles, indices, poses, mask_radius, where)
        packed = everything.gather(torch.fft.rfft2(masked)).cpu()
        groups = torch.from_numpy(particles.optics_group[indices])
        power, _ = undo_premultiplication(particles, indices, everything.shell_sums(packed.abs().square()))
        total.index_add_(0, groups, power)
        sizes.index_add_(0, groups, torch.ones(len(groups), dtype=torch.float64))
        mean += packed.sum(0)
    counts = everything.shell_counts().to(torch.float64)
    common = everything.shell_sums((mean / len(chosen)).abs().square()) / (2.0 * counts.clamp(min=1.0))
    sigma2 = total / (2.0 * counts.clamp(min=1.0) * sizes.clamp(min=1.0)[:, None]) - common
    overall = total.sum(0) / (2.0 * counts.clamp(min=1.0) * sizes.sum())
    sigma2 = torch.where(sizes[:, None] > 0, sigma2, overall)
    # DC of masked images is not noise alone; take its neighbour's. Keep every shell positive.
    sigma2[:, 0] = sigma2[:, 1]
    return NoiseModel(torch.maximum(sigma2, 0.1 * overall.clamp(min=1e-30)))
