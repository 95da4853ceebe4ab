"""Local searches: each particle is compared at the orientations near its last one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.so3 import Neighbourhoods, OrientationGrid
from vitreous.core.symmetry import reduce_to_asymmetric_unit
from vitreous.methods.refinement.candidates import Candidates
from vitreous.methods.refinement.sampling import Sampling

LOCAL_CHUNK = 1024  # particles whose neighbourhoods are held at a time


def local_searches(
    order: int,
    perturbation: Float[Tensor, "3 3"],
    symmetry: str,
    indices: NDArray[np.int64],
    rotations: NDArray[np.float64],
    near_of: Callable[[NDArray[np.int64], Tensor], Neighbourhoods],
    sampling_of: Callable[[OrientationGrid], Sampling],
    *,
    chunk: int = LOCAL_CHUNK,
) -> Iterator[tuple[NDArray[np.int64], Sampling, Candidates]]:
    """For chunks of the particles `indices` the orientations near their last ones, and each one's own list.

    order, perturbation: of the HEALPix grid. rotations: of all particles. near_of: the orientations that particles at
    these poses are compared at. sampling_of: makes the sampling of a set of orientations. Particles that look alike
    stand together, so that they share projections. Scheres (2012) J. Struct. Biol. 180, 519, section 2.4.
    """
    poses = reduce_to_asymmetric_unit(torch.from_numpy(rotations[indices]), symmetry)
    in_order = _by_direction(poses)
    n_all = len(rotations)
    for first in range(0, len(indices), chunk):
        chosen = in_order[first : first + chunk]
        particles = indices[chosen]
        near = near_of(particles, poses[torch.from_numpy(chosen)])
        numbers, rows = np.unique(near.orientations.numpy(), return_inverse=True)
        grid = OrientationGrid(order, torch.from_numpy(numbers), perturbation)
        counts = np.zeros(n_all, dtype=np.int64)
        counts[particles] = np.diff(near.starts.numpy())
        starts, where = _in_particle_order(particles, near.starts.numpy(), counts)
        candidates = Candidates(starts, rows[where].astype(np.int64), near.log_prior.numpy()[where].astype(np.float32))
        yield particles, sampling_of(grid), candidates


def in_every_class(candidates: Candidates, n_classes: int, n_rotations: int) -> Candidates:
    """The same orientations for each of several classes: row class * n_rotations + rotation."""
    counts = np.diff(candidates.starts)
    starts = np.concatenate([[0], np.cumsum(counts * n_classes)])
    # each particle's list is laid down once for every class
    owners = np.repeat(np.arange(len(counts)), counts * n_classes)
    place = np.arange(len(owners)) - starts[owners]
    within = candidates.starts[owners] + place % counts[owners]
    rows = place // counts[owners] * n_rotations + candidates.rows[within]
    return Candidates(starts, rows, candidates.log_prior[within])


def _by_direction(poses: Tensor) -> NDArray[np.int64]:
    """Order of particles along a coarse raster of directions, then of in-plane angles."""
    tilt = torch.floor(torch.acos(poses[:, 2, 2].clamp(-1, 1)) * 8)
    rot = torch.floor(torch.atan2(poses[:, 2, 1], poses[:, 2, 0]) * 8)
    psi = torch.atan2(poses[:, 1, 2], -poses[:, 0, 2])
    return np.lexsort((psi.numpy(), rot.numpy(), tilt.numpy()))


def _in_particle_order(
    particles: NDArray[np.int64], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lists laid end to end in the order of `particles` brought into the order of all particles: starts, positions."""
    ascending = np.argsort(particles, kind="stable")
    lengths = counts[particles[ascending]]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.concatenate([[0], np.cumsum(counts)]), np.repeat(starts[:-1][ascending], lengths) + within
