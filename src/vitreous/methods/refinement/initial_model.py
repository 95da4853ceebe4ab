"""A first map from particles alone: stochastic variable-metric ascent on mini-batches.

Each mini-batch gives Fourier sums whose Wiener solution is the step that Newton's method would take for it; running
averages of the sums, with a forgetting factor that falls as batches grow, are the momentum. How far each shell is to
be believed comes from the agreement of two halves of the sums. Resolution is let in slowly.
Punjani et al. (2017) Nat. Methods 14, 290; Kimanius et al. (2021) Biochem. J. 478, 4169.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.core.fsc import fsc
from vitreous.core.masks import soft_sphere
from vitreous.core.rotations import random_rotations
from vitreous.core.so3 import OrientationGrid, orientation_grid, random_perturbation
from vitreous.kernels.backproject import VolumeAccumulator, backproject, empty_volume
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.maximisation import Statistics, maximise
from vitreous.methods.refinement.mini_batches import BatchPlan, blend, blend_noise, draw
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel, prepare
from vitreous.methods.refinement.reconstruct import Reconstruction, complete, reconstruct, shell_weight
from vitreous.methods.refinement.references import Maps
from vitreous.methods.refinement.sampling import Sampling, shift_grid
from vitreous.methods.refinement.statistics import class_distribution, initial_noise, log_fraction, new_noise

_START_IMAGES = 1000


@dataclass(frozen=True)
class InitialModelOptions:
    """Options of the initial model; fractions and sizes as RELION's.

    diameter, resolutions in A; offsets in pixels; symmetry is imposed from the start (see initial_symmetry.py for
    the other way).
    """

    diameter: float
    n_classes: int = 1
    iterations: int = 120
    symmetry: str = "C1"
    tau2_fudge: float = 4.0
    initial_resolution: float = 35.0
    final_resolution: float = 13.0
    batches: BatchPlan = field(default_factory=BatchPlan)
    healpix_order: int = 1
    offset_range: float = 6.0
    offset_step: float = 2.0
    oversampling: int = 1
    max_significant: int = 3000
    padding: int = 1
    memory: int = 1 << 30
    seed: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class InitialModel:
    """The state after a mini-batch.

    densities: (k, box, box, box); sums: for each class and half, the running averages; fsc: (k, shells) between the
    halves; max_shell: highest shell looked at; log_likelihood: mean per particle of the last batch.
    """

    iteration: int
    poses: Poses
    densities: Float[Tensor, "k box box box"]
    sums: tuple[tuple[VolumeAccumulator, VolumeAccumulator], ...]
    noise: NoiseModel
    sigma_offset: float
    distribution: Float[Tensor, "k"]
    fsc: Float[Tensor, "k shells"]
    max_shell: int
    log_likelihood: float = 0.0


def initial_model(
    particles: ParticleSet, poses: Poses, options: InitialModelOptions, resume: InitialModel | None = None
) -> Iterator[InitialModel]:
    """Yield the state after each mini-batch."""
    state = resume or start(particles, poses, options)
    for iteration in range(state.iteration + 1, options.iterations + 1):
        state = _step(particles, replace(state, iteration=iteration), options)
        yield state


def start(particles: ParticleSet, poses: Poses, options: InitialModelOptions) -> InitialModel:
    """Back-project images at random orientations: a ball of about the right size, a different one for each class."""
    generator = _generator(options.seed, 0)
    radius = options.diameter / (2 * particles.pixel_size)
    noise = initial_noise(particles, poses, radius, generator, device=options.device)
    shell = _shell(particles, options.initial_resolution)
    sums = tuple(_blank(particles, options) for _ in range(options.n_classes))
    coefficients = Coefficients.within(particles.box, shell)
    chosen = torch.randperm(len(particles), generator=generator)[: _START_IMAGES * options.n_classes].numpy()
    for k in range(options.n_classes):
        indices = np.sort(chosen[k :: options.n_classes])
        for half in (0, 1):
            mine = indices[half::2]
            images = prepare(particles, mine, poses, noise, coefficients, radius, options.device).unmasked
            rotations = random_rotations(len(mine), generator)
            backproject(sums[k][half], images.data, 2 * images.half_power, rotations, coefficients.coordinates)
    n_shells = particles.box // 2 + 1
    state = InitialModel(
        iteration=0,
        poses=poses,
        densities=torch.zeros(options.n_classes, *(particles.box,) * 3),
        sums=sums,
        noise=noise,
        sigma_offset=10.0 / particles.pixel_size,
        distribution=torch.full((options.n_classes,), 1.0 / options.n_classes, dtype=torch.float64),
        fsc=torch.zeros(options.n_classes, n_shells, dtype=torch.float64),
        max_shell=shell,
    )
    return _solve(state, particles, options)


def log_likelihood(
    particles: ParticleSet, state: InitialModel, noise: NoiseModel, options: InitialModelOptions, *, n_images: int = 300
) -> float:
    """Mean log-likelihood of some particles, one grid, one noise: what runs from several seeds compare by."""
    generator = torch.Generator().manual_seed(1)  # the same particles whatever the run's seed
    chosen = np.sort(torch.randperm(len(particles), generator=generator)[:n_images].numpy())
    grid = replace(options, healpix_order=max(2, options.healpix_order), oversampling=0)
    expectation = _expectation(particles, replace(state, noise=noise), state.max_shell, _sampling(grid, None), options)
    found = [posterior.poses.log_likelihood for posterior in expectation.batches(chosen, state.poses)]
    return float(np.concatenate(found).mean())


def _expectation(
    particles: ParticleSet, state: InitialModel, max_shell: int, sampling: Sampling, options: InitialModelOptions
) -> Expectation:
    settings = Settings(
        max_shell=max_shell,
        mask_radius=options.diameter / (2 * particles.pixel_size),
        max_significant=options.max_significant,
        oversample_below=options.max_significant,
        memory=options.memory,
        device=options.device,
    )
    log_prior = log_fraction(state.distribution)[:, None].expand(-1, len(sampling.rotations))
    references = Maps([d.to(options.device) for d in state.densities], max_shell, options.padding)
    prior = Prior(state.noise, state.sigma_offset, log_prior)
    return Expectation(particles, references, sampling, prior, settings)


def _step(particles: ParticleSet, state: InitialModel, options: InitialModelOptions) -> InitialModel:
    generator = _generator(options.seed, state.iteration)
    done = state.iteration / options.iterations
    max_shell, step = _max_shell(particles, options.batches.part(done), options), options.batches.step(done)
    batch = draw(len(particles), options.batches.size(done, len(particles)), generator)
    expectation = _expectation(particles, state, max_shell, _sampling(options, generator), options)
    halves = [batch[0::2], batch[1::2]]
    poses, found = state.poses, []
    new_sums: list[list[VolumeAccumulator]] = [[], []]
    for half, indices in enumerate(halves):
        sums = _Sums([_blank(particles, options)[0] for _ in range(options.n_classes)])
        poses, statistics = maximise(expectation, indices, poses, sums)
        found.append(statistics)
        new_sums[half] = sums.classes
    found[0].add_(found[1])
    merged = tuple(
        (blend(first, new_sums[0][k], 1 - step, step), blend(second, new_sums[1][k], 1 - step, step))
        for k, (first, second) in enumerate(state.sums)
    )
    poses = replace(poses, norm=state.poses.norm)  # too few particles at a time to estimate contrast
    state = replace(state, poses=poses, sums=merged, max_shell=max_shell)
    return _solve(_update_priors(state, found[0], particles, step), particles, options)


class _Sums:
    """Accumulators of one half (see maximisation.Accumulators)."""

    def __init__(self, classes: list[VolumeAccumulator]) -> None:
        self.classes = classes

    def insert(self, class_index: int, slices: Tensor, weights: Tensor, rotations: Tensor, coordinates: Tensor) -> None:
        backproject(self.classes[class_index], slices, weights, rotations, coordinates)


def _update_priors(state: InitialModel, statistics: Statistics, particles: ParticleSet, step: float) -> InitialModel:
    rate = 0.2 * step
    fresh = new_noise(statistics, particles.box, state.noise)
    spread = np.sqrt(statistics.offset_power / (2 * max(1, statistics.n_particles)))
    return replace(
        state,
        noise=blend_noise(state.noise, fresh, rate),
        sigma_offset=max(1.0, (1 - rate) * state.sigma_offset + rate * float(spread)),
        distribution=(1 - rate) * state.distribution + rate * class_distribution(statistics),
        log_likelihood=statistics.log_likelihood / max(1, statistics.n_particles),
    )


def _solve(state: InitialModel, particles: ParticleSet, options: InitialModelOptions) -> InitialModel:
    """Densities from the sums: agreement of the halves gives the prior, the Wiener solution the map."""
    densities, curves = [], []
    mask = soft_sphere(particles.box, options.diameter / (2 * particles.pixel_size), ndim=3)
    low = _gentle_lowpass(particles, state.max_shell)
    for first, second in state.sums:
        halves = [complete(one, options.symmetry) for one in (first, second)]
        maps = [reconstruct(one, None, Reconstruction()).cpu() * mask for one in halves]
        curve = fsc(*maps).clamp(0.0, 0.98)
        curve[state.max_shell + 1 :] = 0.0  # nothing was put there: what remains is the mask's doing
        both = replace(first, data=halves[0].data + halves[1].data, weight=halves[0].weight + halves[1].weight)
        # signal-to-noise ratio of the whole from that of the halves; 0.01: a door left ajar for shells not yet known
        ssnr = (2 * curve / (1 - curve)).clamp(min=0.01)
        tau2 = ssnr / shell_weight(both).cpu().clamp(min=1e-30)
        density = (
            reconstruct(both, tau2.to(both.weight.device), Reconstruction(tau2_fudge=options.tau2_fudge)).cpu() * mask
        )
        densities.append(to_real(to_fourier(density, 3) * low, (particles.box,) * 3, 3))
        curves.append(curve)
    return replace(state, densities=torch.stack(densities), fsc=torch.stack(curves))


def _gentle_lowpass(particles: ParticleSet, max_shell: int) -> Tensor:
    box = particles.box
    return lowpass((box,) * 3, 1.0, box / (max_shell - 0.5), edge=3.0).to(torch.float32)


def _max_shell(particles: ParticleSet, part: float, options: InitialModelOptions) -> int:
    """Highest shell between the first resolution (part 0) and the last (1)."""
    first, last = (_shell(particles, r) for r in (options.initial_resolution, options.final_resolution))
    return round(first + part * (last - first))


def _shell(particles: ParticleSet, resolution: float) -> int:
    return int(np.clip(round(particles.box * particles.pixel_size / resolution), 4, particles.box // 2 - 1))


def _sampling(options: InitialModelOptions, generator: torch.Generator | None) -> Sampling:
    perturbation = random_perturbation(options.healpix_order, generator) if generator else None
    grid: OrientationGrid = orientation_grid(options.healpix_order, options.symmetry, perturbation)
    offset = (torch.rand(2, generator=generator, dtype=torch.float64) - 0.5).tolist() if generator else [0.0, 0.0]
    coarse, fine = shift_grid(options.offset_range, options.offset_step, options.oversampling, (offset[0], offset[1]))
    rotations = grid.rotations()
    finer = grid.finer(options.oversampling).rotations() if options.oversampling else rotations
    return Sampling(rotations, finer, coarse, fine, grid.step)


def _blank(particles: ParticleSet, options: InitialModelOptions) -> tuple[VolumeAccumulator, VolumeAccumulator]:
    """Empty sums, wide enough for the last resolution."""
    radius = _shell(particles, options.final_resolution)
    make = [empty_volume(particles.box, options.padding, radius, device=options.device) for _ in range(2)]
    return make[0], make[1]


def _generator(seed: int, iteration: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + iteration)
