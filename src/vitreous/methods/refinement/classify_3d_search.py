"""Where 3D classification looks for its particles: at their own poses, near them, or everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.so3 import OrientationGrid, neighbourhoods, orientation_grid, random_perturbation
from vitreous.methods.refinement.auto_sampling import direction_prior
from vitreous.methods.refinement.candidates import Candidates
from vitreous.methods.refinement.classify_3d_state import Classification3D, Options3D
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.local_search import in_every_class, local_searches
from vitreous.methods.refinement.particles import ParticleSet
from vitreous.methods.refinement.references import Maps
from vitreous.methods.refinement.sampling import Sampling, shift_grid
from vitreous.methods.refinement.single_samples import BestCorrelation, FixedPoses
from vitreous.methods.refinement.statistics import log_fraction, strict_shell

Perturbation = tuple[Float[Tensor, "3 3"], tuple[float, float]]
Comparison = tuple[NDArray[np.int64], Expectation, OrientationGrid | None]
_STILL: tuple[None, tuple[float, float]] = (None, (0.0, 0.0))


@dataclass(frozen=True)
class Search:
    """What the comparisons of one iteration have in common. max_shell: highest shell compared and summed."""

    particles: ParticleSet
    state: Classification3D
    options: Options3D
    max_shell: int
    perturbation: Perturbation

    def comparisons(self, references: Maps, classes: list[int], members: NDArray[np.int64]) -> Iterator[Comparison]:
        """Particles, what compares them, and the grid of orientations where it is one for all.

        references: the maps of `classes`; members: the particles that are compared with these.
        """
        if not self.options.align:
            yield self._fixed(references, classes, members)
        elif self.options.sigma_angle > 0:
            yield from self._near(references, classes, members)
        else:
            yield self._everywhere(references, classes, members)

    def _fixed(self, references: Maps, classes: list[int], members: NDArray[np.int64]) -> Comparison:
        prior = self._prior(self._class_prior(classes).expand(-1, len(self.particles)))
        settings = self._settings(self.max_shell)
        poses, by_correlation = self.state.poses, self._by_correlation
        expectation = FixedPoses(self.particles, references, poses, prior, settings, by_correlation=by_correlation)
        return members, expectation, None

    def _near(self, references: Maps, classes: list[int], members: NDArray[np.int64]) -> Iterator[Comparison]:
        o, (rotation, offset) = self.options, self.perturbation
        rotations = self.state.poses.rotations
        for chunk, sampling, near in local_searches(
            o.healpix_order,
            rotation,
            o.symmetry,
            members,
            rotations,
            lambda _, poses: neighbourhoods(o.healpix_order, poses, o.sigma_angle, rotation),
            lambda grid: sampling_of(grid, o, offset),
        ):
            n_rotations = len(sampling.rotations)
            candidates = in_every_class(near, len(classes), n_rotations)
            prior = self._prior(self._class_prior(classes).expand(-1, n_rotations), candidates)
            settings = self._settings(self._coarse_shell(sampling))
            yield chunk, Expectation(self.particles, references, sampling, prior, settings), None

    def _everywhere(self, references: Maps, classes: list[int], members: NDArray[np.int64]) -> Comparison:
        sampling, grid = global_sampling(self.options, self.perturbation)
        views = torch.cat([direction_prior(grid, self.state.directions[c]) for c in classes])
        prior = self._prior(self._class_prior(classes) + views)
        settings = self._settings(self._coarse_shell(sampling))
        kind = BestCorrelation if self._by_correlation else Expectation
        return members, kind(self.particles, references, sampling, prior, settings), grid

    @property
    def _by_correlation(self) -> bool:
        return self.state.iteration == 1 and self.options.first_by_correlation

    def _class_prior(self, classes: list[int]) -> Float[Tensor, "classes 1"]:
        share = self.state.distribution
        if self.options.uniform_classes:
            share = torch.full_like(share, 1.0 / len(share))
        return log_fraction(share)[classes][:, None]

    def _prior(self, log_prior: Float[Tensor, "classes r"], candidates: Candidates | None = None) -> Prior:
        return Prior(self.state.noise, self.state.sigma_offset, log_prior, candidates=candidates)

    def _coarse_shell(self, sampling: Sampling) -> int:
        return sampling.coarse_shell(self.particles.box, self.particles.pixel_size, self.options.diameter)

    def _settings(self, coarse_shell: int) -> Settings:
        o, particles = self.options, self.particles
        guessed = self.state.iteration == 1 and not o.absolute_grey and not self._by_correlation
        return Settings(
            max_shell=self.max_shell,
            mask_radius=mask_radius(particles, o),
            coarse_shell=min(self.max_shell, coarse_shell),
            compared_shell=strict_shell(particles.box * particles.pixel_size, o.strict_highres),
            zero_mask=o.zero_mask,
            pool=o.pool,
            adaptive_fraction=o.adaptive_fraction,
            max_significant=min(o.first_samples, o.max_significant) if guessed else o.max_significant,
            low_precision=o.low_precision,
            memory=o.memory,
            device=o.device,
            ranks=o.ranks,
            phases=o.phases,
        )


def is_global(options: Options3D) -> bool:
    """Whether orientations are searched everywhere."""
    return options.align and options.sigma_angle <= 0


def mask_radius(particles: ParticleSet, options: Options3D) -> float:
    """Radius of the particle mask in pixels."""
    return options.diameter / (2.0 * particles.pixel_size)


def draw_perturbation(options: Options3D, generator: torch.Generator) -> Perturbation:
    """One random displacement of orientations and offsets for a whole iteration."""
    rotation = random_perturbation(options.healpix_order, generator, options.perturb)
    offset = (torch.rand(2, generator=generator, dtype=torch.float64) * 2.0 - 1.0) * options.perturb
    return rotation, (float(offset[0]), float(offset[1]))


def global_sampling(options: Options3D, perturbation: Perturbation | None = None) -> tuple[Sampling, OrientationGrid]:
    """All orientations of the asymmetric unit, displaced or not."""
    rotation, offset = perturbation or _STILL
    grid = orientation_grid(options.healpix_order, options.symmetry, rotation)
    return sampling_of(grid, options, offset), grid


def sampling_of(grid: OrientationGrid, options: Options3D, offset: tuple[float, float]) -> Sampling:
    """A grid of orientations with the shifts that go with it. offset: displacement of the shifts in steps."""
    shifts, fine_shifts = shift_grid(options.offset_range, options.offset_step, options.oversampling, offset)
    fine = grid.finer(options.oversampling) if options.oversampling else grid
    return Sampling(grid.rotations(), fine.rotations(), shifts, fine_shifts, grid.step)
