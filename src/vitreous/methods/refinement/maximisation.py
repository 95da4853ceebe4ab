"""Maximisation: posterior-weighted sums of the images, the noise that is left, and the new priors.

Each orientation's sum goes once into its class's accumulator. The accumulators become references in
`class_average.py` (2D) and `reconstruct.py` (3D). Scheres (2012) J. Struct. Biol. 180, 519, equations 3 to 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.backproject import (
    ImageAccumulator,
    VolumeAccumulator,
    backproject,
    backproject_2d,
    empty_images,
    empty_volume,
)
from vitreous.kernels.weighted_sums import WeightedSums, pair_totals, weighted_sums
from vitreous.methods.refinement.expectation import Expectation, Posterior
from vitreous.methods.refinement.group_scale import signal_products
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.references import psi_of
from vitreous.runtime.ranks import Ranks


class Accumulators(Protocol):
    """Where slices of K classes are summed."""

    def insert(
        self,
        class_index: int,
        slices: Complex[Tensor, "r m"],
        weights: Float[Tensor, "r m"],
        rotations: Float[Tensor, "r 3 3"],
        coordinates: Float[Tensor, "m 2"],
    ) -> None:
        """Add slices and their weights to one class."""
        ...


class AverageSums:
    """2D sums, one accumulator a class."""

    def __init__(self, n_classes: int, box: int, max_radius: int, padding: int = 2) -> None:
        self.classes: list[ImageAccumulator] = [empty_images(1, box, padding, max_radius) for _ in range(n_classes)]

    def insert(
        self,
        class_index: int,
        slices: Complex[Tensor, "r m"],
        weights: Float[Tensor, "r m"],
        rotations: Float[Tensor, "r 3 3"],
        coordinates: Float[Tensor, "m 2"],
    ) -> None:
        """See Accumulators."""
        # 2D sums are small: they stay on the CPU wherever the images are
        there = (slices[None].cpu(), weights[None].cpu(), psi_of(rotations), coordinates)
        backproject_2d(self.classes[class_index], *there)

    def sum_(self, ranks: Ranks) -> None:
        """Add the sums of all ranks."""
        _sum_accumulators(self.classes, ranks)


class MapSums:
    """3D sums, one accumulator a class."""

    def __init__(
        self, n_classes: int, box: int, max_radius: int, padding: int = 2, device: torch.device | None = None
    ) -> None:
        self.classes: list[VolumeAccumulator] = [
            empty_volume(box, padding, max_radius, device=device) for _ in range(n_classes)
        ]

    def insert(
        self,
        class_index: int,
        slices: Complex[Tensor, "r m"],
        weights: Float[Tensor, "r m"],
        rotations: Float[Tensor, "r 3 3"],
        coordinates: Float[Tensor, "m 2"],
    ) -> None:
        """See Accumulators."""
        backproject(self.classes[class_index], slices, weights, rotations, coordinates)

    def sum_(self, ranks: Ranks) -> None:
        """Add the sums of all ranks."""
        _sum_accumulators(self.classes, ranks)


def _sum_accumulators(classes: Sequence[ImageAccumulator | VolumeAccumulator], ranks: Ranks) -> None:
    for one in classes:
        ranks.sum_(one.data)
        ranks.sum_(one.weight)


@dataclass
class Statistics:
    """Running sums over particles, all float64.

    residual: (groups, box // 2 + 1) expected |X - CTF P|^2 over each half-plane shell; group_sizes: particles a
    group; row_weights: (classes, R) posterior weight of each coarse orientation; offset_power: expected squared
    distance of origins from their prior (pixels^2); products: sums of X A and A^2 (group_scale.py), where wanted.
    """

    residual: Float[Tensor, "groups shells"]
    group_sizes: Float[Tensor, "groups"]
    row_weights: Float[Tensor, "classes r"]
    offset_power: float = 0.0
    log_likelihood: float = 0.0
    max_probability: float = 0.0
    n_particles: int = 0
    products: Float[Tensor, "scale_groups 2"] = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.float64))

    @staticmethod
    def empty(n_groups: int, box: int, n_classes: int, n_rotations: int) -> Statistics:
        """Nothing seen yet."""
        wide = torch.float64
        return Statistics(
            torch.zeros(n_groups, box // 2 + 1, dtype=wide),
            torch.zeros(n_groups, dtype=wide),
            torch.zeros(n_classes, n_rotations, dtype=wide),
        )

    @property
    def class_weights(self) -> Float[Tensor, "classes"]:
        """Posterior number of particles in each class."""
        return self.row_weights.sum(1)

    def add_(self, other: Statistics) -> None:
        """Add the sums of other particles (another rank's or half's)."""
        self.residual += other.residual
        self.group_sizes += other.group_sizes
        self.row_weights += other.row_weights
        self.offset_power += other.offset_power
        self.log_likelihood += other.log_likelihood
        self.max_probability += other.max_probability
        self.n_particles += other.n_particles
        self.products = self.products + other.products if len(self.products) else other.products

    def sum_(self, ranks: Ranks) -> None:
        """Add the sums of all ranks."""
        for tensor in (self.residual, self.group_sizes, self.row_weights, self.products):
            ranks.sum_(tensor)
        single = [self.offset_power, self.log_likelihood, self.max_probability, float(self.n_particles)]
        added = ranks.sum_(torch.tensor(single, dtype=torch.float64)).tolist()
        self.offset_power, self.log_likelihood, self.max_probability = added[:3]
        self.n_particles = round(added[3])


def maximise(
    expectation: Expectation,
    indices: NDArray[np.int64],
    poses: Poses,
    accumulators: Accumulators,
    *,
    scale_shell: int = 0,
) -> tuple[Poses, Statistics]:
    """One pass over the particles `indices`: expectation, sums into accumulators, statistics, new poses.

    poses: of all particles; returned with those of `indices` renewed. Each rank takes its share of the particles; poses
    are every rank's, sums and statistics this one's (`sum_` adds them up when a pass is over). scale_shell: highest
    shell from which the scales of the particles' groups are estimated (where they have scales).
    """
    e = expectation
    ranks = e.settings.ranks
    share = ranks.shard(len(indices))
    statistics = Statistics.empty(
        e.particles.n_groups, e.particles.box, e.references.n_classes, len(e.sampling.rotations)
    )
    scale = e.particles.scale if scale_shell else None
    if scale is not None:
        # made before any particle is seen: a rank that has none adds nothing, in the same shape as the others
        statistics.products = torch.zeros(len(scale), 2, dtype=torch.float64)
    mean_norm = float(poses.norm.mean())
    renewed = poses
    parts: list[tuple[NDArray[np.int64], Poses]] = []
    mine = e.batches(indices[share.start : share.stop], poses)
    for posterior in e.settings.phases.turns(mine, "expectation", "maximisation"):
        sums = weighted_sums(
            posterior.images.masked,
            posterior.images.unmasked,
            posterior.references,
            posterior.level.phases,
            posterior.samples,
            e.coefficients.shell_starts,
        )
        _insert(e, posterior, sums, accumulators)
        if scale is not None:
            products = signal_products(posterior, sums, e.coefficients, min(scale_shell, e.coefficients.max_shell))
            _add_products(statistics, e.particles, posterior.indices, products)
        residual = _residual(posterior, sums)
        _count(e, posterior, residual, statistics)
        # RELION's norm correction: root mean square of what the model leaves, relative to the others
        recorded = residual[:, : e.particles.common_shell + 1]
        spread = np.sqrt(2.0 * recorded.sum(1).cpu().numpy()) / e.particles.box**2
        parts.append((posterior.indices, replace(posterior.poses, norm=posterior.poses.norm / mean_norm * spread)))
    parts = [part for theirs in ranks.gather(parts) for part in theirs]
    if parts:
        every = np.concatenate([part[0] for part in parts])
        renewed = poses.put(every, _join([part[1] for part in parts]))
    return renewed, statistics


def _add_products(
    statistics: Statistics, particles: ParticleSet, indices: NDArray[np.int64], products: NDArray[np.float64]
) -> None:
    assert particles.scale_groups is not None
    groups = torch.from_numpy(particles.scale_groups[indices])
    statistics.products.index_add_(0, groups, torch.from_numpy(products))


def _join(parts: list[Poses]) -> Poses:
    return Poses(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in Poses.__dataclass_fields__})


def _insert(e: Expectation, posterior: Posterior, sums: WeightedSums, accumulators: Accumulators) -> None:
    coordinates = e.coefficients.coordinates
    classes = posterior.row_classes[sums.rows]
    for k in np.unique(classes):
        members = torch.from_numpy(np.flatnonzero(classes == k))
        rotations = posterior.level.rotations[torch.from_numpy(posterior.row_rotations[sums.rows])[members]]
        there = members.to(sums.data.device)
        accumulators.insert(int(k), sums.data[there], sums.power[there], rotations, coordinates)


def _residual(posterior: Posterior, sums: WeightedSums) -> Float[Tensor, "n shells"]:
    """Expected |X - CTF P|^2 of each image by shell: its power less twice the gain in units of the noise.

    Shells beyond those compared hold the image's whole power.
    """
    residual = posterior.images.shell_power.clone()
    n_shells = sums.gains.shape[1]
    sigma2 = posterior.images.sigma2[:, :n_shells].to(torch.float64)
    share = posterior.images.gain_share
    residual[:, :n_shells] -= 2.0 * sigma2 * sums.gains * (1.0 if share is None else share[:, :n_shells])
    return residual.clamp(min=0.0)


def _count(e: Expectation, posterior: Posterior, residual: Tensor, statistics: Statistics) -> None:
    groups = torch.from_numpy(e.particles.optics_group[posterior.indices])
    statistics.residual.index_add_(0, groups, residual.cpu())
    statistics.group_sizes.index_add_(0, groups, torch.ones(len(groups), dtype=torch.float64))
    samples = posterior.samples
    totals = pair_totals(samples, e.sampling.fine_shifts.numpy())
    a, n_rotations = e.sampling.orientation_children, len(e.sampling.rotations)
    row = posterior.row_classes[samples.rows] * n_rotations + posterior.row_rotations[samples.rows] // a
    by_row = np.bincount(row, totals[:, 0], minlength=statistics.row_weights.numel())
    statistics.row_weights += torch.from_numpy(by_row).reshape(statistics.row_weights.shape)
    centres = posterior.images.centres
    if e.prior.origins is not None:
        centres = centres - e.prior.origins[posterior.indices]
    # sum of w |c + s|^2 = |c|^2 sum w + 2 c . sum w s + sum w |s|^2, c the image's centre, s the shift
    mine = centres[samples.images]
    power = totals[:, 0] * np.square(mine).sum(1) + 2.0 * (mine * totals[:, 1:3]).sum(1) + totals[:, 3]
    statistics.offset_power += float(power.sum())
    statistics.log_likelihood += float(posterior.poses.log_likelihood.sum())
    statistics.max_probability += float(posterior.poses.max_probability.sum())
    statistics.n_particles += len(posterior.indices)
