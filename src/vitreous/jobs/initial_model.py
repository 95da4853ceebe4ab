"""A first three-dimensional map, from particles alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from vitreous.core.errors import InputError
from vitreous.core.fourier import rescale
from vitreous.core.fsc import fsc_resolution
from vitreous.core.symmetry import canonical_name
from vitreous.data.dataset import Dataset
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map, write_map
from vitreous.io.refinement_files import (
    ClassModel,
    OptimiserFile,
    SamplingFile,
    iteration_root,
    write_iteration,
)
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.jobs._model_file import model_file
from vitreous.jobs._particles import CtfParameters, mask_diameter, read_particles
from vitreous.methods.refinement.align_symmetry import align_to_axes, symmetrise_density
from vitreous.methods.refinement.dataset import poses_of, with_poses
from vitreous.methods.refinement.initial_model import (
    InitialModel,
    InitialModelOptions,
    initial_model,
    log_likelihood,
)
from vitreous.methods.refinement.mini_batches import BatchPlan
from vitreous.methods.refinement.particles import ParticleSet
from vitreous.methods.refinement.rescaled import rescaled_for
from vitreous.methods.refinement.statistics import initial_noise
from vitreous.runtime.checkpoint import load_checkpoint, save_checkpoint
from vitreous.runtime.memory import batch_memory
from vitreous.runtime.progress import track

log = logging.getLogger(__name__)
_EVERY = 10  # iterations between files


class InitialModelParameters(CtfParameters):
    """What `initial-model` takes."""

    input: str = parameter(help="STAR file of particles, cleaned by 2D classification", aliases=("i",))
    symmetry: str = parameter("C1", help="point group", aliases=("sym",))
    particle_diameter: float = parameter(
        0.0, help="diameter of the mask (0: 90% of the box)", unit="A", aliases=("particle_diameter",), ge=0
    )
    n_classes: int = parameter(1, help="number of maps", aliases=("K",), ge=1, le=20)
    iterations: int = parameter(120, help="mini-batches of each run", aliases=("iter",), ge=5, le=1000)
    starts: int = parameter(2, help="runs from different seeds, of which the likeliest map is kept", ge=1, le=20)
    tau2_fudge: float = parameter(
        4.0, help="regularisation T: more lets finer detail in", aliases=("tau2_fudge",), gt=0
    )
    initial_resolution: float = parameter(
        35.0, help="detail used at first", unit="A", aliases=("grad_ini_resol",), gt=0
    )
    final_resolution: float = parameter(13.0, help="detail used at last", unit="A", aliases=("grad_fin_resol",), gt=0)
    offset_range: float = parameter(6.0, help="range of shifts", unit="px", aliases=("offset_range",), ge=0)
    offset_step: float = parameter(
        2.0, help="step of shifts before oversampling", unit="px", aliases=("offset_step",), gt=0
    )
    healpix_order: int = parameter(
        1, help="angular grid before oversampling (1: 30 degrees)", aliases=("healpix_order",), ge=0, le=3
    )
    symmetry_from_start: bool = parameter(
        True, help="impose the symmetry on every iteration (else: run in C1, find the axes, symmetrise)", advanced=True
    )
    initial_batch: int = parameter(
        0, help="particles in the first batches (0: 0.5%, 200 to 5,000)", aliases=("grad_ini_subset",), ge=0,
        advanced=True,
    )  # fmt: skip
    final_batch: int = parameter(
        0, help="particles in the last batches (0: 10%, 500 to 50,000)", aliases=("grad_fin_subset",), ge=0,
        advanced=True,
    )  # fmt: skip
    ctf: bool = parameter(True, help="correct for the CTF", aliases=("ctf",))
    oversampling: int = parameter(1, help="halvings of the steps for likely samples", ge=0, le=3, advanced=True)
    padding: int = parameter(1, help="oversampling of Fourier space", aliases=("pad",), ge=1, le=3, advanced=True)
    maximum_significants: int = parameter(
        3000, help="most samples kept for a particle", aliases=("maxsig",), ge=1, advanced=True
    )


class InitialModelJob(Job):
    """Initial model by stochastic ascent on mini-batches."""

    name: ClassVar[str] = "initial-model"
    folder: ClassVar[str] = "InitialModel"
    relion_type: ClassVar[str] = "relion.initialmodel"
    help: ClassVar[str] = "make a first map from particles alone"
    Parameters: ClassVar[type[JobParameters]] = InitialModelParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write initial_model.mrc, and run_itNNN_* of the run that was kept every ten iterations."""
        symmetry = canonical_name(params.symmetry)
        dataset, particles = read_particles(
            params.input,
            context,
            ctf=params.ctf,
            diameter=params.particle_diameter,
            treatment=params.treatment(),
            reading=params,
        )
        if len(particles) < 50 * params.n_classes:
            raise InputError(
                context.project / params.input,
                f"{len(particles)} particles are too few for {params.n_classes} initial model(s)",
                "Give at least 50 for each class; hundreds are better.",
            )
        full_box, particles = particles.box, rescaled_for(particles, params.final_resolution)
        if particles.box < full_box:
            log.info("working in a box of %d pixels of %.2f A", particles.box, particles.pixel_size)
        options = _options(params, context, particles, symmetry, full_box)
        scores = []
        for number in range(params.starts):
            scores.append(_run_once(dataset, particles, replace(options, seed=context.seed + number), number, context))
            log.info("run %d of %d: mean log-likelihood %.2f", number + 1, params.starts, scores[-1])
        best = int(np.argmax(scores))
        return _finish(best, scores, (particles, full_box), symmetry, params, context)


def _options(
    params: InitialModelParameters, context: Context, particles: ParticleSet, symmetry: str, full_box: int
) -> InitialModelOptions:
    # offsets are in pixels of the images as given; a coarser pixel needs no step finer than its own
    scale = particles.box / full_box
    return InitialModelOptions(
        diameter=mask_diameter(params.particle_diameter, particles),
        n_classes=params.n_classes,
        iterations=params.iterations,
        symmetry=symmetry if params.symmetry_from_start else "C1",
        tau2_fudge=params.tau2_fudge,
        initial_resolution=params.initial_resolution,
        final_resolution=params.final_resolution,
        batches=BatchPlan(initial_batch=params.initial_batch, final_batch=params.final_batch),
        healpix_order=params.healpix_order,
        offset_range=params.offset_range * scale,
        offset_step=max(params.offset_step * scale, min(1.5, params.offset_step)),
        oversampling=params.oversampling,
        padding=params.padding,
        max_significant=params.maximum_significants,
        memory=batch_memory(context.memory),
        seed=context.seed,
        device=context.device,
    )


def _run_once(
    dataset: Dataset, particles: ParticleSet, options: InitialModelOptions, number: int, context: Context
) -> float:
    """One run from one seed; its score. A run that an earlier attempt finished is not done again."""
    folder = context.directory / f"start{number + 1}"
    done = load_checkpoint(folder / "score.npz") if context.resume else None
    if done is not None:
        return float(done["score"])
    poses = poses_of(dataset, particles.pixel_size)
    radius = options.diameter / (2 * particles.pixel_size)
    common = initial_noise(particles, poses, radius, context.generator(), device=options.device)
    state: InitialModel | None = None
    what = f"initial model, run {number + 1}"
    for state in track(initial_model(particles, poses, options), what, options.iterations):
        if state.iteration % _EVERY == 0 or state.iteration == options.iterations:
            _write(state, dataset, particles, options, folder, context)
            context.iteration_done()
    assert state is not None
    score = log_likelihood(particles, state, common, options)
    save_checkpoint(
        folder / "score.npz",
        {
            "score": np.array(score),
            "fsc": state.fsc.numpy(),
            "distribution": state.distribution.numpy(),
        },
    )
    return score


def _write(
    state: InitialModel,
    dataset: Dataset,
    particles: ParticleSet,
    options: InitialModelOptions,
    folder: Path,
    context: Context,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    root = iteration_root(folder, state.iteration)
    classes = []
    for k, density in enumerate(state.densities):
        path = Path(f"{root}_class{k + 1:03d}.mrc")
        write_map(path, Volume(density, particles.pixel_size))
        classes.append(_class_model(state, k, particles, context.relative(path)))
    model = model_file(
        particles,
        state.poses,
        classes,
        state.noise,
        shells=(state.max_shell, state.max_shell),
        sigma_offset=state.sigma_offset,
        log_likelihood=state.log_likelihood,
        tau2_fudge=options.tau2_fudge,
        padding=options.padding,
    )
    optimiser = OptimiserFile(
        state.iteration, options.iterations, options.diameter, options.oversampling, 0.999, options.seed
    )
    step = 360.0 / (6 << options.healpix_order)
    sampling = SamplingFile(
        step, options.offset_range, options.offset_step, particles.pixel_size, 0.5, options.healpix_order,
        options.symmetry,
    )  # fmt: skip
    with_columns = with_poses(dataset, state.poses, particles.pixel_size)
    write_iteration(root, context.project, with_columns, model, optimiser, sampling)


def _class_model(state: InitialModel, k: int, particles: ParticleSet, reference: str) -> ClassModel:
    curve = state.fsc[k].numpy()
    ssnr = 2 * curve / np.clip(1 - curve, 1e-3, None)
    zero = np.zeros_like(curve)
    resolution = fsc_resolution(state.fsc[k], particles.box, particles.pixel_size, 0.5)
    return ClassModel(reference, float(state.distribution[k]), resolution, ssnr, zero, zero, fsc=curve)


def _finish(
    best: int,
    scores: list[float],
    images: tuple[ParticleSet, int],
    symmetry: str,
    params: InitialModelParameters,
    context: Context,
) -> Outputs:
    """Write the map(s) of the best run in the particles' own box; images: as worked on, and the full box."""
    particles, full_box = images
    folder = context.directory / f"start{best + 1}"
    saved = load_checkpoint(folder / "score.npz")
    assert saved is not None
    largest = int(np.argmax(saved["distribution"]))
    root = iteration_root(folder, params.iterations)
    nodes, metrics = {}, {"n_particles": len(particles), "best_start": best + 1, "log_likelihood": scores[best]}
    order = [largest, *[k for k in range(params.n_classes) if k != largest]]
    for place, k in enumerate(order):
        density = read_map(Path(f"{root}_class{k + 1:03d}.mrc")).density
        if symmetry != "C1" and not params.symmetry_from_start:
            density, agreement = align_to_axes(density, symmetry, particles.pixel_size, params.final_resolution)
            metrics["symmetry_correlation"] = agreement
            log.info("%s axes found: the map agrees with its symmetry mates to %.3f", symmetry, agreement)
            density = symmetrise_density(density, symmetry)
        name = "initial_model.mrc" if place == 0 else f"initial_model_class{place + 1:03d}.mrc"
        path = context.directory / name
        if full_box > particles.box:
            density = rescale(density, (full_box,) * 3)
        write_map(path, Volume(density, particles.pixel_size * particles.box / full_box))
        nodes[context.relative(path)] = "DensityMap.mrc.relion.initialmodel"
    nodes[context.relative(Path(f"{root}_data.star"))] = "ParticleGroupMetadata.star.relion.initialmodel"
    curve = torch.from_numpy(np.asarray(saved["fsc"][largest], dtype=np.float64))
    resolution = fsc_resolution(curve, particles.box, particles.pixel_size, 0.5)
    metrics["halves_fsc05_resolution_A"] = resolution
    return Outputs(
        nodes=nodes,
        metrics=dict(metrics),
        summary=f"initial model in {symmetry} from {len(particles)} particles, halves agree to {resolution:.0f} A",
    )
