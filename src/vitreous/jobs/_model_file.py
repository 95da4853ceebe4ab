"""What every alignment's _model.star holds, filled from the particles and from what the run knows."""

from __future__ import annotations

import numpy as np

from vitreous.core.fsc import shell_resolution
from vitreous.io.refinement_files import ClassModel, ModelFile
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
    )


def resolution_of_shell(particles: ParticleSet, shell: int) -> float:
    """Resolution in A of a shell of the particles' box; that of the first one for none."""
    return shell_resolution(max(1, shell), particles.box, particles.pixel_size)


def last_known_shell(data_vs_prior: np.ndarray) -> int:
    """The last shell before a class's signal-to-noise ratio falls below one (0: not even the first)."""
    below = np.flatnonzero(data_vs_prior[1:] < 1.0)
    return int(below[0]) if len(below) else len(data_vs_prior) - 1
