"""What every alignment's _model.star holds, filled from the particles and from what the run knows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fsc import shell_resolution
from vitreous.io.refinement_files import ClassModel, ModelFile, ScaleGroups
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel


def model_file(
    particles: ParticleSet,
    poses: Poses,
    classes: list[ClassModel],
    noise: NoiseModel,
    *,
    shells: tuple[int, int],
    sigma_offset: float,
    log_likelihood: float,
    tau2_fudge: float,
    padding: int,
    ndim: int = 3,
    scale_groups: ScaleGroups | None = None,
) -> ModelFile:
    """shells: the resolution reached and the highest one summed. sigma_offset in pixels."""
    reached, max_shell = shells
    return ModelFile(
        ndim=ndim,
        box=particles.box,
        pixel_size=particles.pixel_size,
        max_shell=max_shell,
        resolution=resolution_of_shell(particles, reached),
        tau2_fudge=tau2_fudge,
        sigma_offset=sigma_offset * particles.pixel_size,
        norm=float(poses.norm.mean()),
        log_likelihood=log_likelihood,
        max_probability=float(poses.max_probability.mean()),
        classes=classes,
        noise=noise.sigma2.numpy(),
        group_sizes=np.bincount(particles.optics_group, minlength=particles.n_groups).tolist(),
        padding=padding,
        scale_groups=scale_groups,
    )


def class_model(
    particles: ParticleSet,
    reference: str,
    share: Tensor,
    curves: tuple[Tensor, Tensor, Tensor],
    directions: NDArray[np.float64] | None = None,
) -> ClassModel:
    """A class that is judged by its own signal-to-noise ratio. curves: data_vs_prior, sigma2, tau2 by shell."""
    data_vs_prior, sigma2, tau2 = (curve.numpy() for curve in curves)
    resolution = ssnr_resolution(particles, data_vs_prior)
    return ClassModel(reference, float(share), resolution, data_vs_prior, sigma2, tau2, directions=directions)


def ssnr_resolution(particles: ParticleSet, data_vs_prior: NDArray[np.float64]) -> float:
    """Resolution in A of the last shell before the signal-to-noise ratio falls below one; 999 if it is the first."""
    below = np.flatnonzero(data_vs_prior[1:] < 1.0)
    shell = int(below[0]) if len(below) else len(data_vs_prior) - 1
    return resolution_of_shell(particles, shell) if shell else 999.0


def resolution_of_shell(particles: ParticleSet, shell: int) -> float:
    """Resolution in A of a shell of the particles' box; that of the first one for none."""
    return shell_resolution(max(1, shell), particles.box, particles.pixel_size)
