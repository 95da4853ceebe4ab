"""2D classification by expectation maximisation with a prior on the averages.

Scheres, Valle, Nunez et al. (2005) J. Mol. Biol. 348, 139; Scheres (2012) J. Mol. Biol. 415, 406.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import lowpass, shift_images, to_real
from vitreous.core.masks import soft_sphere
from vitreous.kernels.backproject import ImageAccumulator
from vitreous.methods.refinement.class_average import average
from vitreous.methods.refinement.class_upkeep import centres_of, donors, follow_centres, revive_classes
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.expectation import Expectation, Prior, Settings
from vitreous.methods.refinement.group_scale import renewed_scale, scale_shell
from vitreous.methods.refinement.maximisation import AverageSums, Statistics, maximise
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel, place_images
from vitreous.methods.refinement.references import ClassAverages
from vitreous.methods.refinement.running_sums import shared_with_copies, shifted
from vitreous.methods.refinement.sampling import in_plane_sampling
from vitreous.methods.refinement.statistics import (
    class_distribution,
    initial_noise,
    log_fraction,
    new_noise,
    new_sigma_offset,
    next_max_shell,
    resolution_shell,
    signal_power,
    strict_shell,
)
from vitreous.runtime.phases import Phases
from vitreous.runtime.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Options2D:
    """Options of 2D classification; defaults are RELION's.

    diameter: of the particle mask (A); psi_step (degrees), offset_range and offset_step (pixels) are those of the
    coarse grid, before oversampling; ini_high: resolution (A) of the first averages (0: 15% of the diameter);
    strict_highres: finest detail (A) that is compared (0: no limit); zero_mask: see preprocess.prepare.
    """

    n_classes: int
    diameter: float
    iterations: int = 25
    tau2_fudge: float = 2.0
    psi_step: float = 12.0
    offset_range: float = 5.0
    offset_step: float = 2.0
    oversampling: int = 1
    adaptive_fraction: float = 0.999
    max_significant: int = 2**62
    strict_highres: float = 0.0
    zero_mask: bool = True
    incr_size: int = 10
    ini_high: float = 0.0
    centre_classes: bool = True
    revive_until: float = 0.6
    uniform_classes: bool = True
    norm_correction: bool = True
    scale_correction: bool = False
    low_precision: bool = True
    perturb: float = 0.5
    pool: int = 512
    padding: int = 2
    memory: int = 1 << 30
    seed: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ranks: Ranks = ALONE
    phases: Phases = field(default_factory=Phases)


@dataclass(frozen=True)
class Classification:
    """The state after an iteration: all that the next one needs, and what the files tell.

    references: (k, box, box); sigma_offset in pixels; distribution, data_vs_prior, tau2, sigma2: by class (and
    shell); max_shell: highest shell compared in this iteration; shell: resolution reached; scale: intensity of each
    group of particles (empty: not estimated); sums: running sums of each class, where mini-batches keep them.
    """

    iteration: int
    poses: Poses
    references: Float[Tensor, "k box box"]
    noise: NoiseModel
    sigma_offset: float
    distribution: Float[Tensor, "k"]
    data_vs_prior: Float[Tensor, "k shells"]
    tau2: Float[Tensor, "k shells"]
    sigma2: Float[Tensor, "k shells"]
    max_shell: int
    shell: int
    log_likelihood: float = 0.0
    scale: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    sums: tuple[ImageAccumulator, ...] = ()

    @property
    def average_max_probability(self) -> float:
        """Mean over particles of the largest posterior weight."""
        return float(self.poses.max_probability.mean())


def classify_2d(
    particles: ParticleSet, poses: Poses, options: Options2D, resume: Classification | None = None
) -> Iterator[Classification]:
    """Yield the state after each iteration, from `resume` on where it is given.

    Randomness depends on seed and iteration alone, so that a resumed run ends where an uninterrupted one would.
    """
    state = resume or start(particles, poses, options)
    for iteration in range(state.iteration + 1, options.iterations + 1):
        state = iterate(particles, replace(state, iteration=iteration), options)
        yield state


def start(particles: ParticleSet, poses: Poses, options: Options2D) -> Classification:
    """Averages of random subsets, unaligned and low-passed; noise from the images themselves."""
    generator = iteration_generator(options.seed, 0)
    radius = options.diameter / (2 * particles.pixel_size)
    seen = radius if options.zero_mask else particles.box
    noise = initial_noise(particles, poses, seen, generator, device=options.device)
    references = _random_averages(particles, poses, options, generator)
    k, n_shells = options.n_classes, particles.box // 2 + 1
    zero = torch.zeros(k, n_shells, dtype=torch.float64)
    return Classification(
        iteration=0,
        poses=poses,
        references=references,
        noise=noise,
        sigma_offset=10.0 / particles.pixel_size,
        distribution=torch.full((k,), 1.0 / k, dtype=torch.float64),
        data_vs_prior=zero,
        tau2=signal_power(references),
        sigma2=zero,
        max_shell=0,
        shell=first_shell(particles, options),
        scale=particles.first_scale() if options.scale_correction else np.zeros(0),
    )


def iterate(particles: ParticleSet, state: Classification, options: Options2D) -> Classification:
    """One iteration of expectation maximisation over all particles."""
    state, sums, statistics = pass_over(particles, state, np.arange(len(particles)), options)
    state = replace(state, distribution=class_distribution(statistics))
    with options.phases.phase("reconstruction"):
        return renew(state, sums, statistics, particles, options)


def first_shell(particles: ParticleSet, options: Options2D) -> int:
    """Highest shell of the first averages."""
    return max(1, round(particles.box * particles.pixel_size / _ini_high(options, particles.pixel_size)))


def pass_over(
    particles: ParticleSet, state: Classification, indices: NDArray[np.int64], options: Options2D
) -> tuple[Classification, AverageSums, Statistics]:
    """Expectation and sums over some particles: their poses and the highest shell are new in the state."""
    box, particles = particles.box, particles.with_scale(state.scale)
    # RELION's ten shells are for boxes of a hundred pixels and more; in a small box they would be most of it
    max_shell = next_max_shell(state.shell, box, incr_size=min(options.incr_size, max(3, box // 12)))
    sampling = in_plane_sampling(
        options.psi_step,
        options.offset_range,
        options.offset_step,
        oversampling=options.oversampling,
        generator=iteration_generator(options.seed, state.iteration),
        perturb=options.perturb,
    )
    settings = Settings(
        max_shell=max_shell,
        mask_radius=options.diameter / (2 * particles.pixel_size),
        coarse_shell=min(max_shell, sampling.coarse_shell(box, particles.pixel_size, options.diameter)),
        adaptive_fraction=options.adaptive_fraction,
        max_significant=options.max_significant,
        pool=options.pool,
        zero_mask=options.zero_mask,
        compared_shell=strict_shell(box * particles.pixel_size, options.strict_highres),
        low_precision=options.low_precision,
        memory=options.memory,
        device=options.device,
        ranks=options.ranks,
        phases=options.phases,
    )
    believed = torch.full_like(state.distribution, 1.0 / options.n_classes)
    if not options.uniform_classes:
        believed = state.distribution
    log_prior = log_fraction(believed)[:, None].expand(-1, len(sampling.rotations))
    prior = Prior(state.noise, state.sigma_offset, log_prior)
    references = ClassAverages(state.references.to(options.device), max_shell, options.padding)
    sums = AverageSums(options.n_classes, box, max_shell, options.padding)
    expectation = Expectation(particles, references, sampling, prior, settings)
    known = scale_shell(state.data_vs_prior, at_least=state.shell if state.iteration == 1 else 2)
    poses, statistics = maximise(expectation, indices, state.poses, sums, scale_shell=known)
    sums.sum_(options.ranks)
    statistics.sum_(options.ranks)
    if not options.norm_correction:
        poses = replace(poses, norm=state.poses.norm)
    return replace(state, poses=poses, max_shell=max_shell), sums, statistics


def renew(
    state: Classification,
    sums: AverageSums,
    statistics: Statistics,
    particles: ParticleSet,
    options: Options2D,
    *,
    keep_sums: bool = False,
) -> Classification:
    """New averages, noise and priors from the sums of a pass; the state's distribution is new already."""
    tau2 = signal_power(state.references)
    solved = [average(sums.classes[k], tau2[k], options.tau2_fudge) for k in range(options.n_classes)]
    references = _flatten_solvent(torch.stack([one.image for one in solved]), particles.pixel_size, options.diameter)
    poses, kept = state.poses, sums.classes
    if options.centre_classes:
        centres = centres_of(references)
        references, poses = shift_images(references, -centres), follow_centres(poses, centres)
        kept = [shifted(one, -centre) for one, centre in zip(kept, centres, strict=True)] if keep_sums else kept
    if state.iteration <= options.revive_until * options.iterations:
        donor_of = donors(state.distribution)
        references = revive_classes(references, donor_of, iteration_generator(options.seed, -state.iteration))
        if keep_sums:
            kept, distribution = shared_with_copies(kept, state.distribution, donor_of)
            state = replace(state, distribution=distribution)
    seen = particles.with_scale(state.scale)
    data_vs_prior = torch.stack([one.data_vs_prior for one in solved])
    return replace(
        state,
        poses=poses,
        references=references,
        noise=new_noise(statistics, particles.box, state.noise),
        sigma_offset=new_sigma_offset(statistics),
        data_vs_prior=data_vs_prior,
        tau2=tau2,
        sigma2=torch.stack([one.sigma2 for one in solved]),
        shell=resolution_shell(data_vs_prior),
        log_likelihood=statistics.log_likelihood,
        scale=renewed_scale(statistics.products, seen),
        sums=tuple(kept) if keep_sums else (),
    )


def _flatten_solvent(images: Float[Tensor, "k box box"], pixel_size: float, diameter: float) -> Tensor:
    mask = soft_sphere(images.shape[-1], diameter / (2 * pixel_size))
    return images * mask


def _ini_high(options: Options2D, pixel_size: float) -> float:
    return options.ini_high or max(4.0 * pixel_size, 0.15 * options.diameter)


def _random_averages(
    particles: ParticleSet, poses: Poses, options: Options2D, generator: torch.Generator
) -> Float[Tensor, "k box box"]:
    """Phase-flipping averages of random subsets: sum CTF X / (sum CTF^2 + what keeps the zeros of few images low)."""
    n, k, box = len(particles), options.n_classes, particles.box
    classes = torch.randperm(n, generator=generator) % k
    radius = options.diameter / (2 * particles.pixel_size)
    everything = Coefficients.within(box, box // 2)
    data = torch.zeros(k, len(everything), dtype=torch.complex64)
    weight = torch.zeros(k, len(everything))
    for indices in np.array_split(np.arange(n), max(1, n // 250)):
        _, masked, _ = place_images(particles, indices, poses, radius, torch.device("cpu"))
        packed = everything.gather(torch.fft.rfft2(masked))
        ctf = particles.ctf(indices, everything)
        mine = classes[torch.from_numpy(indices)]
        data.index_add_(0, mine, packed * particles.data_weight(indices, everything, ctf))
        weight.index_add_(0, mine, ctf.square())
    images_ft = everything.scatter(data / (weight + 0.1 * weight.mean(1, keepdim=True)).clamp(min=1e-6))
    low = lowpass((box, box), particles.pixel_size, _ini_high(options, particles.pixel_size)).to(torch.float32)
    averages = to_real(images_ft * low, (box, box))
    return _flatten_solvent(averages, particles.pixel_size, options.diameter)


def iteration_generator(seed: int, iteration: int) -> torch.Generator:
    """The randomness of one iteration."""
    return torch.Generator().manual_seed(1_000_003 * seed + iteration)
