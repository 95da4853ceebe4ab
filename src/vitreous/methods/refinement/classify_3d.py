"""3D classification: expectation maximisation of several maps, with a prior on each.

Each iteration: one pass over all particles, in which every particle is shared out among classes, orientations and
shifts; a map from each class's sums, regularised by the power of the map before; new noise and priors. There are no
halves: how far a class is to be believed is told by its signal-to-noise ratio against that prior.
Scheres (2012) J. Mol. Biol. 415, 406; J. Struct. Biol. 180, 519.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.symmetry import symmetric_distance
from vitreous.methods.refinement.accuracy import grey_scale, pose_changes
from vitreous.methods.refinement.auto_sampling import count_directions
from vitreous.methods.refinement.classify_3d_search import (
    Search,
    draw_perturbation,
    global_sampling,
    is_global,
    mask_radius,
)
from vitreous.methods.refinement.classify_3d_state import Changes, Classification3D, Options3D
from vitreous.methods.refinement.initial_reference import lowpassed
from vitreous.methods.refinement.maximisation import MapSums, Statistics, maximise
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel
from vitreous.methods.refinement.reconstruct import Reconstruction, complete, reconstruct, shell_weight
from vitreous.methods.refinement.references import Maps
from vitreous.methods.refinement.solvent import flatten_solvent
from vitreous.methods.refinement.statistics import (
    class_distribution,
    initial_noise,
    new_noise,
    new_sigma_offset,
    next_max_shell,
    resolution_shell,
    signal_power,
)

_FIRST_SIGMA_OFFSET = 10.0  # A
# A shell of which the map before held nothing is let in with this signal-to-noise ratio at least.
_LEAST_SSNR = 1e-3


def classify_3d(
    particles: ParticleSet,
    poses: Poses,
    references: Float[Tensor, "n box box box"],
    options: Options3D,
    resume: Classification3D | None = None,
) -> Iterator[Classification3D]:
    """Yield the state after each iteration, from `resume` on where it is given.

    references: one map for each class, or one for all: then each particle's class is drawn in the first iteration.
    Randomness depends on seed and iteration alone: a resumed run ends where an uninterrupted one would.
    """
    state = resume or start(particles, poses, references, options)
    for iteration in range(state.iteration + 1, options.iterations + 1):
        state = _iterate(particles, replace(state, iteration=iteration), options)
        yield state


def start(
    particles: ParticleSet, poses: Poses, references: Float[Tensor, "n box box box"], options: Options3D
) -> Classification3D:
    """The state before the first iteration: low-passed references in the data's grey values."""
    box, pixel_size, k = particles.box, particles.pixel_size, options.n_classes
    shell = max(1, round(box * pixel_size / options.ini_high))
    generator = _generator(options.seed, 0)
    maps = [_flat(lowpassed(one, pixel_size, options.ini_high), pixel_size, options) for one in references]
    noise = initial_noise(particles, poses, mask_radius(particles, options), generator, device=options.device)
    if not options.absolute_grey:
        maps = [one * _grey_factor(particles, poses, one, noise, shell, options, generator) for one in maps]
    densities = torch.stack(maps if len(maps) == k else maps * k)
    empty = torch.zeros(k, box // 2 + 1, dtype=torch.float64)
    return Classification3D(
        iteration=0,
        poses=replace(poses, classes=np.zeros_like(poses.classes)),
        densities=densities,
        noise=noise,
        sigma_offset=_FIRST_SIGMA_OFFSET / pixel_size,
        distribution=torch.full((k,), 1.0 / k, dtype=torch.float64),
        directions=torch.zeros(k, 0, dtype=torch.float64),
        data_vs_prior=empty,
        tau2=signal_power(densities),
        sigma2=empty,
        max_shell=0,
        shell=shell,
        alike=len(maps) < k,
        changes=Changes(1.0, 999.0, 999.0),
    )


def _grey_factor(
    particles: ParticleSet,
    poses: Poses,
    density: Tensor,
    noise: NoiseModel,
    shell: int,
    options: Options3D,
    generator: torch.Generator,
) -> float:
    """Factor to the data's grey values; a coarse grid is enough for it."""
    sampling, _ = global_sampling(replace(options, healpix_order=min(options.healpix_order, 2)))
    everyone, radius = np.arange(len(particles)), mask_radius(particles, options)
    references = Maps([density], shell, options.padding)
    return grey_scale(particles, everyone, poses, references, noise, sampling, shell, radius, generator)


@dataclass(frozen=True)
class _Pass:
    """What one pass over the particles gave. directions: as in Classification3D."""

    poses: Poses
    sums: MapSums
    statistics: Statistics
    directions: Float[Tensor, "k pixels"]


def _iterate(particles: ParticleSet, state: Classification3D, options: Options3D) -> Classification3D:
    box = particles.box
    max_shell = next_max_shell(state.shell, box, incr_size=options.incr_size)
    found = _share_out(particles, state, max_shell, options)
    poses = found.poses if options.norm_correction else replace(found.poses, norm=state.poses.norm)
    tau2 = signal_power(state.densities)
    with options.phases.phase("reconstruction"):
        solved = [_solve(found.sums, k, tau2[k], particles, options) for k in range(options.n_classes)]
    data_vs_prior = torch.stack([one.data_vs_prior for one in solved])
    statistics = found.statistics
    return replace(
        state,
        poses=poses,
        densities=torch.stack([one.density for one in solved]),
        noise=new_noise(statistics, box, state.noise),
        sigma_offset=new_sigma_offset(statistics) if options.align else state.sigma_offset,
        distribution=class_distribution(statistics),
        directions=found.directions,
        data_vs_prior=data_vs_prior,
        tau2=torch.stack([one.tau2 for one in solved]),
        sigma2=torch.stack([one.sigma2 for one in solved]),
        max_shell=max_shell,
        shell=resolution_shell(data_vs_prior),
        alike=False,
        changes=_changes(state.poses, poses, options.symmetry),
        log_likelihood=statistics.log_likelihood,
    )


def _share_out(particles: ParticleSet, state: Classification3D, max_shell: int, options: Options3D) -> _Pass:
    """Expectation over all particles; while the references are copies of one, each particle's class is drawn."""
    k, box, n = options.n_classes, particles.box, len(particles)
    generator = _generator(options.seed, state.iteration)
    search = Search(particles, state, options, max_shell, draw_perturbation(options, generator))
    sums = MapSums(k, box, max_shell, options.padding, options.device)
    total = Statistics.empty(particles.n_groups, box, k, 1)
    poses = state.poses
    directions = torch.zeros(k, 12 * 4**options.healpix_order if is_global(options) else 0, dtype=torch.float64)
    for classes, members in _lots(n, state, generator):
        maps = [state.densities[c].to(options.device) for c in classes]
        references = Maps(maps, max_shell, options.padding)
        into = _OfClasses(sums, classes)
        for indices, expectation, grid in search.comparisons(references, classes, members):
            found, statistics = maximise(expectation, indices, state.poses, into)
            mine = found.take(indices)
            poses = poses.put(indices, replace(mine, classes=np.asarray(classes)[mine.classes]))
            by_class = torch.zeros(k, 1, dtype=torch.float64)
            by_class[classes, 0] = statistics.class_weights
            total.add_(replace(statistics, row_weights=by_class))
            if grid is not None:
                for row, c in enumerate(classes):
                    directions[c] += count_directions(grid, statistics.row_weights[row : row + 1])
    sums.sum_(options.ranks)
    total.sum_(options.ranks)
    return _Pass(poses, sums, total, options.ranks.sum_(directions))


def _lots(n: int, state: Classification3D, generator: torch.Generator) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
    """Classes that are compared, and the particles that are compared with them: all with all, or drawn by lot."""
    k = len(state.distribution)
    if not state.alike:
        yield list(range(k)), np.arange(n)
        return
    drawn = (torch.randperm(n, generator=generator) % k).numpy()
    for c in range(k):
        if (drawn == c).any():
            yield [c], np.flatnonzero(drawn == c)


@dataclass(frozen=True)
class _OfClasses:
    """Sums of some of the classes (see maximisation.Accumulators)."""

    sums: MapSums
    classes: list[int]

    def insert(self, class_index: int, slices: Tensor, weights: Tensor, rotations: Tensor, coordinates: Tensor) -> None:
        """See Accumulators."""
        self.sums.insert(self.classes[class_index], slices, weights, rotations, coordinates)


@dataclass(frozen=True)
class _Solved:
    """One class's map and how well it is known: prior, error, and signal-to-noise ratio by shell."""

    density: Float[Tensor, "box box box"]
    tau2: Float[Tensor, "shells"]
    sigma2: Float[Tensor, "shells"]
    data_vs_prior: Float[Tensor, "shells"]


def _solve(sums: MapSums, k: int, tau2: Float[Tensor, "shells"], particles: ParticleSet, options: Options3D) -> _Solved:
    """The Wiener map of one class's sums, given the power of the map before."""
    inserted = sums.classes[k]
    # Maps are made on the CPU whatever device compared the images: it takes seconds, and states stay in one place.
    completed = complete(replace(inserted, data=inserted.data.cpu(), weight=inserted.weight.cpu()), options.symmetry)
    weight = shell_weight(completed)
    sigma2 = torch.where(weight > 0, 1.0 / weight.clamp(min=1e-300), 0.0)
    tau2 = torch.maximum(tau2, sigma2 * (_LEAST_SSNR / options.tau2_fudge))
    how = Reconstruction(options.tau2_fudge, options.gridding_iterations)
    density = _flat(reconstruct(completed, tau2, how), particles.pixel_size, options)
    return _Solved(density, tau2, sigma2, options.tau2_fudge * tau2 * weight)


def _flat(density: Tensor, pixel_size: float, options: Options3D) -> Tensor:
    return flatten_solvent(density, pixel_size, options.diameter, options.mask)


def _changes(old: Poses, new: Poses, symmetry: str) -> Changes:
    distance = symmetric_distance(torch.from_numpy(old.rotations), torch.from_numpy(new.rotations), symmetry)
    return Changes(float((old.classes != new.classes).mean()), *pose_changes(old, new, distance))


def _generator(seed: int, iteration: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + iteration)
