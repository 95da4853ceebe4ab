"""The sampling of auto-refine: from the global grid to ever finer, then local ones, and when to stop.

Scheres (2012) J. Struct. Biol. 180, 519, section 2.6: the grid is made twice finer when neither the resolution nor
the poses have improved, until the step is finer than the estimated accuracy of the angles, or a local grid twice as
fine has brought no better resolution than the one before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.so3 import (
    Neighbourhoods,
    OrientationGrid,
    angular_step,
    n_in_plane,
    orientation_grid,
    random_perturbation,
)
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, AutoRefineState, Schedule
from vitreous.methods.refinement.candidates import Candidates
from vitreous.methods.refinement.local_search import LOCAL_CHUNK, local_searches
from vitreous.methods.refinement.orientation_priors import nearby
from vitreous.methods.refinement.sampling import Sampling, shift_grid

# A step below this share of the accuracy is fine enough, below the other it is where resolution is not gained any more;
# patience in iterations; share by which changes must shrink.
_ACCURACY_SHARE = 0.75
_ABOUT_THE_ACCURACY = 1.5
_PATIENCE = 1
_LEAST_IMPROVEMENT = 0.9
_PRIOR_CHUNK = 128  # particles whose priors on a whole grid are held at a time


def first_schedule(options: AutoRefineOptions, shell: int) -> Schedule:
    """Where refinement starts."""
    return Schedule(options.first_order, options.offset_range, options.offset_step, best_shell=shell, entry_shell=shell)


def is_local(schedule: Schedule, options: AutoRefineOptions) -> bool:
    """Whether orientations are searched around each particle's last one alone."""
    return schedule.order >= options.local_order


def searches_locally(schedule: Schedule, options: AutoRefineOptions) -> bool:
    """Whether each particle has a list of orientations of its own: near its last one, or near what its priors say."""
    return is_local(schedule, options) or options.sigma_ang > 0 or options.priors.of_particles


def advance(state: AutoRefineState, options: AutoRefineOptions) -> Schedule:
    """The schedule of the next iteration: the same, a finer grid, or the final one."""
    schedule = state.schedule
    stuck = schedule.no_gain >= _PATIENCE and schedule.no_change >= _PATIENCE
    fine_step = angular_step(schedule.order + options.oversampling)
    # Judged anew each time: a poor early reference makes the accuracy look worse than it is.
    fine_enough = fine_step < _ACCURACY_SHARE * state.rotation_accuracy
    # A level that gained no resolution is the last one, once its steps are about as fine as poses can be told apart.
    gained = schedule.best_shell > schedule.entry_shell
    useless = is_local(schedule, options) and not gained and fine_step < _ABOUT_THE_ACCURACY * state.rotation_accuracy
    if state.iteration + 1 >= options.max_iterations or (stuck and (fine_enough or useless)):
        return replace(schedule, fine_enough=fine_enough, final=True)
    if not stuck or fine_enough:
        return replace(schedule, fine_enough=fine_enough)
    reach, step = _finer_offsets(state, options)
    best = schedule.best_shell
    return Schedule(schedule.order + 1, reach, step, best_shell=best, entry_shell=best)


def _finer_offsets(state: AutoRefineState, options: AutoRefineOptions) -> tuple[float, float]:
    """Range and step (pixels) of the coarse offset grid after the angles were made finer.

    The step follows the accuracy of the offsets, the range their last changes; at most 9 x 9 offsets.
    """
    split = 2**options.oversampling
    step = min(1.5, _ACCURACY_SHARE * state.offset_accuracy) * split
    reach = min(5.0 * state.offset_change, 1.3 * state.schedule.offset_range)
    step = min(step, state.schedule.offset_step)
    reach = max(reach, 1.5 * step)
    return reach, max(step, reach / 4.0)


def judge(schedule: Schedule, shell: int, rotation_change: float, offset_change: float) -> Schedule:
    """Count the iterations without gain in resolution and without smaller changes of the poses."""
    shrinks = (
        rotation_change < _LEAST_IMPROVEMENT * schedule.smallest_rotation
        or offset_change < _LEAST_IMPROVEMENT * schedule.smallest_offset
    )
    return replace(
        schedule,
        no_gain=0 if shell > schedule.best_shell else schedule.no_gain + 1,
        no_change=0 if shrinks else schedule.no_change + 1,
        smallest_rotation=min(schedule.smallest_rotation, rotation_change),
        smallest_offset=min(schedule.smallest_offset, offset_change),
        best_shell=max(schedule.best_shell, shell),
    )


def perturbations(
    schedule: Schedule, options: AutoRefineOptions, generator: torch.Generator
) -> tuple[Float[Tensor, "3 3"], tuple[float, float]]:
    """One random displacement of the orientations and of the offsets for a whole iteration."""
    rotation = random_perturbation(schedule.order, generator, options.perturb)
    offset = (torch.rand(2, generator=generator, dtype=torch.float64) * 2.0 - 1.0) * options.perturb
    return rotation, (float(offset[0]), float(offset[1]))


def global_sampling(
    schedule: Schedule,
    options: AutoRefineOptions,
    perturbation: Float[Tensor, "3 3"],
    offset_perturbation: tuple[float, float],
) -> tuple[Sampling, OrientationGrid]:
    """All orientations of the asymmetric unit."""
    grid = options.priors.limited(orientation_grid(schedule.order, options.symmetry, perturbation))
    return _sampling(grid, schedule, options, offset_perturbation), grid


def local_samplings(
    schedule: Schedule,
    options: AutoRefineOptions,
    indices: NDArray[np.int64],
    rotations: NDArray[np.float64],
    perturbation: Float[Tensor, "3 3"],
    offset_perturbation: tuple[float, float],
) -> Iterator[tuple[NDArray[np.int64], Sampling, Candidates]]:
    """For chunks of the particles `indices` the orientations near their last ones, and each one's own list.

    rotations: of all particles. The prior's standard deviation is the coarse step (twice the fine one). While searches
    are not local yet, the lists hold all that the particles' priors allow.
    """
    still_global = not is_local(schedule, options)
    priors, symmetry = options.priors, options.symmetry
    if still_global and options.sigma_ang <= 0:
        allowed = priors.limited(orientation_grid(schedule.order, symmetry, perturbation))
        chunk = _PRIOR_CHUNK

        def near_of(chosen: NDArray[np.int64], poses: Tensor) -> Neighbourhoods:
            return priors.whole_grid(allowed, chosen, symmetry)
    else:
        sigma = options.sigma_ang if still_global else angular_step(schedule.order)
        numbered = OrientationGrid(schedule.order, torch.zeros(0, dtype=torch.int64), perturbation)
        chunk = LOCAL_CHUNK

        def near_of(chosen: NDArray[np.int64], poses: Tensor) -> Neighbourhoods:
            near = nearby(schedule.order, poses, sigma, perturbation, options.relaxed_symmetry)
            return priors.restrict(near, numbered, chosen, symmetry)

    yield from local_searches(
        schedule.order,
        perturbation,
        symmetry,
        indices,
        rotations,
        near_of,
        lambda grid: _sampling(grid, schedule, options, offset_perturbation),
        chunk=chunk,
    )


def _sampling(
    grid: OrientationGrid, schedule: Schedule, options: AutoRefineOptions, offset_perturbation: tuple[float, float]
) -> Sampling:
    shifts, fine_shifts = shift_grid(
        schedule.offset_range, schedule.offset_step, options.oversampling, offset_perturbation
    )
    fine = grid.finer(options.oversampling)
    return Sampling(grid.rotations(), fine.rotations(), shifts, fine_shifts, grid.step)


def direction_prior(grid: OrientationGrid, directions: Float[Tensor, "pixels"]) -> Float[Tensor, "1 r"]:
    """Log-prior of each coarse orientation from how many particles had each direction in the last iteration.

    One is added to each direction's count, so that none is shut out. Uniform where there are no counts yet.
    """
    n_psi = n_in_plane(grid.order)
    pixels = torch.div(grid.orientations, n_psi, rounding_mode="floor")
    n_directions = len(grid) // n_psi
    if directions.numel() != 12 * 4**grid.order:
        return torch.full((1, len(grid)), -math.log(len(grid)))
    total = directions.sum() + n_directions
    return torch.log((directions[pixels] + 1.0) / (total * n_psi))[None].to(torch.float32)


def count_directions(grid: OrientationGrid, row_weights: Float[Tensor, "1 r"]) -> Float[Tensor, "pixels"]:
    """Posterior number of particles by HEALPix pixel."""
    pixels = torch.div(grid.orientations, n_in_plane(grid.order), rounding_mode="floor")
    total = torch.zeros(12 * 4**grid.order, dtype=torch.float64)
    return total.index_add_(0, pixels, row_weights[0].to(torch.float64))
