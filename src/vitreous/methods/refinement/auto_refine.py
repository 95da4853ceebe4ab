"""Gold-standard auto-refine: two halves of the particles, refined independently, decide how far to go.

Each iteration: choose the sampling; one pass of expectation and maximisation over each half with its own reference;
compare the halves; new references, noise and priors; judge progress. When neither resolution nor poses improve at
the finest useful sampling, a last iteration goes to Nyquist and joins the halves.
Scheres (2012) J. Struct. Biol. 180, 519; Scheres and Chen (2012) Nat. Methods 9, 853.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fsc import resolution_shell
from vitreous.core.symmetry import symmetric_distance
from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.methods.refinement.accuracy import accuracies, grey_scale, pose_changes
from vitreous.methods.refinement.auto_refine_state import (
    AutoRefineOptions,
    AutoRefineState,
    HalfModel,
    Schedule,
)
from vitreous.methods.refinement.auto_sampling import (
    advance,
    count_directions,
    direction_prior,
    first_schedule,
    global_sampling,
    judge,
    local_samplings,
    perturbations,
    searches_locally,
)
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.gold_standard import combine, compare_halves
from vitreous.methods.refinement.group_scale import renewed_scale, scale_shell
from vitreous.methods.refinement.initial_reference import lowpassed
from vitreous.methods.refinement.maximisation import MapSums, Statistics, maximise
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.reconstruct import complete
from vitreous.methods.refinement.references import Maps
from vitreous.methods.refinement.sampling import Sampling
from vitreous.methods.refinement.solvent import flatten_solvent
from vitreous.methods.refinement.statistics import (
    initial_noise,
    new_noise,
    new_sigma_offset,
    signal_power,
    strict_shell,
)

_SURE = 0.1  # mean largest posterior weight from which the resolution may grow in leaps
_FIRST_SIGMA_OFFSET = 10.0  # A


def auto_refine(
    particles: ParticleSet,
    poses: Poses,
    half_sets: NDArray[np.int64],
    reference: Float[Tensor, "box box box"],
    options: AutoRefineOptions,
    resume: AutoRefineState | None = None,
) -> Iterator[AutoRefineState]:
    """Yield the state after each iteration until the final one; from `resume` on where it is given.

    half_sets: 1 or 2 for each particle; no image of one half ever has a part in the other's reference.
    Randomness depends on seed and iteration alone: a resumed run ends where an uninterrupted one would.
    """
    state = resume or start(particles, poses, half_sets, reference, options)
    while not state.schedule.final:
        state = _iterate(particles, state, options)
        yield state


def start(
    particles: ParticleSet,
    poses: Poses,
    half_sets: NDArray[np.int64],
    reference: Float[Tensor, "box box box"],
    options: AutoRefineOptions,
) -> AutoRefineState:
    """The state before the first iteration: both halves with the same low-passed reference."""
    box, pixel_size = particles.box, particles.pixel_size
    shell = max(1, round(box * pixel_size / options.ini_high))
    density = _first_density(reference, pixel_size, options)
    generator = _generator(options.seed, 0)
    seen = _mask_radius(particles, options) if options.zero_mask else box
    noise = initial_noise(particles, poses, seen, generator, device=options.device)
    schedule = first_schedule(options, shell)
    if not options.absolute_grey:
        sampling, _ = global_sampling(schedule, options, torch.eye(3, dtype=torch.float64), (0.0, 0.0))
        references = Maps([density], shell, options.padding)
        everyone = np.arange(len(particles))
        radius = _mask_radius(particles, options)
        density = density * grey_scale(
            particles, everyone, poses, references, noise, sampling, shell, radius, generator
        )
    empty = torch.zeros(box // 2 + 1, dtype=torch.float64)
    nothing = torch.zeros(0, dtype=torch.float64)
    scale = torch.from_numpy(particles.first_scale()) if options.scale_correction else nothing
    sigma_offset, tau2 = _FIRST_SIGMA_OFFSET / pixel_size, signal_power(density[None])[0]
    half = HalfModel(density, noise, sigma_offset, tau2, empty, nothing, scale)
    blank = torch.zeros(0, 0, 0)
    return AutoRefineState(
        iteration=0,
        poses=poses,
        half_sets=half_sets,
        halves=(half, half),
        schedule=schedule,
        curve=empty,
        max_shell=0,
        shell=shell,
        rotation_change=999.0,
        offset_change=999.0,
        rotation_accuracy=0.0,
        offset_accuracy=0.0,
        log_likelihood=0.0,
        high_fsc_at_limit=False,
        half_maps=blank[None],
        density=blank,
    )


def _first_density(
    reference: Float[Tensor, "box box box"], pixel_size: float, options: AutoRefineOptions
) -> Float[Tensor, "box box box"]:
    """The reference of both halves. A mask comes before the low-pass, lest it carry what they share beyond it."""
    if options.mask is not None:
        masked = flatten_solvent(reference, pixel_size, options.diameter, options.mask)
        return lowpassed(masked, pixel_size, options.ini_high)
    density = lowpassed(reference, pixel_size, options.ini_high)
    return flatten_solvent(density, pixel_size, options.diameter)


def _iterate(particles: ParticleSet, state: AutoRefineState, options: AutoRefineOptions) -> AutoRefineState:
    iteration = state.iteration + 1
    generator = _generator(options.seed, iteration)
    schedule = advance(state, options) if state.iteration else state.schedule
    max_shell = particles.box // 2 if schedule.final else _next_max_shell(state, particles.box, options)
    shifted = perturbations(schedule, options, generator)
    halves, sums, accuracy, log_likelihood = [], [], [], 0.0
    poses = state.poses
    for number, half in enumerate(state.halves, 1):
        mine = np.flatnonzero(state.half_sets == number)
        seen = particles.with_scale(half.scale.numpy())
        references = Maps([half.density.to(options.device)], max_shell, options.padding)
        accuracy.append(accuracies(seen, mine, state.poses, references, half.noise, max_shell, generator))
        new_poses, renewed, half_sums, statistics = _half_pass(
            seen, mine, state.poses, half, references, schedule, max_shell, shifted, options
        )
        poses = poses.put(mine, new_poses.take(mine))
        halves.append(renewed)
        sums.append(half_sums)
        log_likelihood += statistics.log_likelihood
    completed = (sums[0], sums[1])
    with options.phases.phase("reconstruction"):
        gold = compare_halves(completed, particles.pixel_size, options, iteration)
        whole = combine(completed, gold, particles.pixel_size, options, iteration) if schedule.final else None
    shell = resolution_shell(gold.curve[: max_shell + 1])
    distance = symmetric_distance(
        torch.from_numpy(state.poses.rotations), torch.from_numpy(poses.rotations), options.symmetry
    )
    rotation_change, offset_change = pose_changes(state.poses, poses, distance)
    finished = [
        replace(half, density=result.density, tau2=result.tau2, sigma2=result.sigma2)
        for half, result in zip(halves, gold.halves, strict=True)
    ]
    return AutoRefineState(
        iteration=iteration,
        poses=poses,
        half_sets=state.half_sets,
        halves=(finished[0], finished[1]),
        schedule=judge(schedule, shell, rotation_change, offset_change),
        curve=gold.curve,
        max_shell=max_shell,
        shell=shell,
        rotation_change=rotation_change,
        offset_change=offset_change,
        rotation_accuracy=max(angle for angle, _ in accuracy),  # the worse half's
        offset_accuracy=max(offset for _, offset in accuracy),
        log_likelihood=log_likelihood,
        high_fsc_at_limit=bool(gold.curve[max_shell - 1] > 0.2),
        half_maps=gold.unfiltered,
        density=torch.zeros(0, 0, 0) if whole is None else whole.density,
    )


def _half_pass(
    particles: ParticleSet,
    mine: NDArray[np.int64],
    poses: Poses,
    half: HalfModel,
    references: Maps,
    schedule: Schedule,
    max_shell: int,
    shifted: tuple[Tensor, tuple[float, float]],
    options: AutoRefineOptions,
) -> tuple[Poses, HalfModel, VolumeAccumulator, Statistics]:
    """Expectation and maximisation over one half: new poses (of all, changed for `mine`), noise, priors, sums.

    The sums come completed, so that those of only one half are ever held twice.
    """
    sums = MapSums(1, particles.box, max_shell, options.padding, options.device)
    total = Statistics.empty(particles.n_groups, particles.box, 1, 1)
    new_poses, directions = poses, half.directions
    known = scale_shell(half.tau2 / half.sigma2.clamp(min=1e-300)) if bool(half.sigma2.any()) else max_shell
    is_first = not bool(half.sigma2.any())
    most = options.first_samples if is_first and not options.absolute_grey else 2**62
    origins = options.priors.origins
    if searches_locally(schedule, options):
        for chunk, sampling, candidates in local_samplings(schedule, options, mine, poses.rotations, *shifted):
            flat = torch.zeros(1, len(sampling.rotations))
            prior = Prior(half.noise, half.sigma_offset, flat, origins, candidates)
            expectation = _expectation(particles, references, sampling, prior, max_shell, options, most)
            found, statistics = maximise(expectation, chunk, poses, sums, scale_shell=known)
            new_poses = new_poses.put(chunk, found.take(chunk))
            total.add_(replace(statistics, row_weights=statistics.row_weights.sum(1, keepdim=True)))
    else:
        sampling, grid = global_sampling(schedule, options, *shifted)
        prior = Prior(half.noise, half.sigma_offset, direction_prior(grid, half.directions), origins)
        expectation = _expectation(particles, references, sampling, prior, max_shell, options, most)
        new_poses, statistics = maximise(expectation, mine, poses, sums, scale_shell=known)
        directions = options.ranks.sum_(count_directions(grid, statistics.row_weights))
        total.add_(replace(statistics, row_weights=statistics.row_weights.sum(1, keepdim=True)))
    sums.sum_(options.ranks)
    total.sum_(options.ranks)
    if not options.norm_correction:
        new_poses = replace(new_poses, norm=poses.norm)
    renewed = replace(
        half,
        noise=new_noise(total, particles.box, half.noise),
        sigma_offset=new_sigma_offset(total),
        directions=directions,
        scale=torch.from_numpy(renewed_scale(total.products, particles, mine)),
    )
    inserted = sums.classes[0]
    # Maps are made on the CPU whatever device compared the images: it takes seconds, and states stay in one place.
    inserted = replace(inserted, data=inserted.data.cpu(), weight=inserted.weight.cpu())
    return new_poses, renewed, complete(inserted, options.symmetry), total


def _expectation(
    particles: ParticleSet,
    references: Maps,
    sampling: Sampling,
    prior: Prior,
    max_shell: int,
    options: AutoRefineOptions,
    max_significant: int,
) -> Expectation:
    coarse = sampling.coarse_shell(particles.box, particles.pixel_size, options.diameter)
    settings = Settings(
        max_shell=max_shell,
        mask_radius=_mask_radius(particles, options),
        coarse_shell=min(max_shell, coarse),
        adaptive_fraction=options.adaptive_fraction,
        max_significant=min(max_significant, options.max_significant),
        zero_mask=options.zero_mask,
        pool=options.pool,
        compared_shell=strict_shell(particles.box * particles.pixel_size, options.strict_highres),
        low_precision=options.low_precision,
        memory=options.memory,
        device=options.device,
        ranks=options.ranks,
        phases=options.phases,
    )
    return Expectation(particles, references, sampling, prior, settings)


def _next_max_shell(state: AutoRefineState, box: int, options: AutoRefineOptions) -> int:
    """Highest shell to compare: the resolution reached and incr_size beyond.

    Where poses are sure and the halves still agree at the last limit, a quarter of the way to Nyquist beyond.
    """
    sure = state.average_max_probability > _SURE and state.high_fsc_at_limit
    leap = max(options.incr_size, round(0.25 * box / 2)) if sure else options.incr_size
    return min(box // 2, state.shell + leap)


def _mask_radius(particles: ParticleSet, options: AutoRefineOptions) -> float:
    return options.diameter / (2.0 * particles.pixel_size)


def _generator(seed: int, iteration: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + iteration)
