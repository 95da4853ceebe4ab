"""Maps of particles whose poses are known."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import to_fourier
from vitreous.data.volume import Volume
from vitreous.kernels.backproject import VolumeAccumulator, backproject, empty_volume
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet
from vitreous.methods.refinement.reconstruct import Reconstruction, complete, reconstruct, shell_weight


def insert_particles(
    into: VolumeAccumulator,
    particles: ParticleSet,
    indices: NDArray[np.int64],
    rotations: Float[Tensor, "n 3 3"],
    origins: Float[Tensor, "n 2"],
) -> None:
    """Back-project particles at known poses: data CTF * X, weight CTF^2.

    rotations: poses of these particles; origins: shifts (y, x) in pixels that bring them to the centre.
    """
    coefficients = Coefficients.within(particles.box, into.max_radius)
    images_ft = coefficients.gather(to_fourier(particles.images[indices]))
    images_ft = images_ft * coefficients.shift_phases(origins)
    ctf = particles.ctf(indices, coefficients)
    images_ft = images_ft * particles.data_weight(indices, coefficients, ctf)
    backproject(into, images_ft, ctf.square(), rotations, coefficients.coordinates)


def reconstruct_particles(
    particles: ParticleSet,
    indices: NDArray[np.int64],
    rotations: Float[Tensor, "n 3 3"],
    origins: Float[Tensor, "n 2"],
    *,
    symmetry: str = "C1",
    padding: int = 2,
    max_shell: int | None = None,
    wiener: float = 0.0,
    options: Reconstruction = Reconstruction(),
    batch: int = 256,
) -> Volume:
    """The map of particles at known poses.

    wiener: added to every shell's weight as this share of its mean (0: none), for few or noisy particles.
    """
    into = empty_volume(particles.box, padding, max_shell)
    for start in range(0, len(indices), batch):
        part = slice(start, start + batch)
        insert_particles(into, particles, indices[part], rotations[part], origins[part])
    completed = complete(into, symmetry)
    tau2 = None
    if wiener > 0:
        mean = shell_weight(completed)
        tau2 = torch.where(mean > 0, 1.0 / (wiener * mean).clamp(min=1e-300), 0.0)
    return Volume(reconstruct(completed, tau2, options), particles.pixel_size)
