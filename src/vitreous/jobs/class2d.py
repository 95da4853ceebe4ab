"""Sort particles into 2D classes: the first look at what is a particle and what is not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.refinement_files import (
    iteration_root,
)
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.jobs._class2d_files import load_state, save_state, write_state
from vitreous.jobs._continuation import classification, parameters_2d
from vitreous.jobs._model_file import resolution_of_shell
from vitreous.jobs._particles import ComparisonParameters, mask_diameter, read_particles
from vitreous.methods.refinement.classify_2d import Classification, Options2D, classify_2d
from vitreous.methods.refinement.classify_2d_batches import batch_plan, classify_2d_batches
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.sampling import in_plane_sampling
from vitreous.runtime.memory import batch_memory
from vitreous.runtime.progress import track

log = logging.getLogger(__name__)
_EVERY = 10  # mini-batches between files


class Class2DParameters(ComparisonParameters):
    """What `class2d` takes."""

    input: str = parameter(help="STAR file of particles", aliases=("i",))
    n_classes: int = parameter(50, help="number of classes", aliases=("K",), ge=1, le=2000)
    iterations: int = parameter(
        0, help="number of iterations (0: 25, or 200 mini-batches)", aliases=("iter",), ge=0, le=1000
    )
    mini_batches: bool = parameter(
        False,
        help="learn from a few hundred particles at a time: quicker for large sets",
        aliases=("grad",),
        advanced=True,
    )
    particle_diameter: float = parameter(
        0.0, help="diameter of the circular mask (0: 90% of the box)", unit="A", aliases=("particle_diameter",), ge=0
    )
    tau2_fudge: float = parameter(
        2.0, help="regularisation T: more lets finer detail in", aliases=("tau2_fudge",), gt=0
    )
    psi_step: float = parameter(
        12.0, help="in-plane step before oversampling", unit="deg", aliases=("psi_step",), gt=0, le=90
    )
    offset_range: float = parameter(5.0, help="range of shifts", unit="px", aliases=("offset_range",), ge=0)
    offset_step: float = parameter(
        2.0, help="step of shifts before oversampling", unit="px", aliases=("offset_step",), gt=0
    )
    oversampling: int = parameter(1, help="halvings of the steps for likely samples", ge=0, le=3, advanced=True)
    ctf: bool = parameter(True, help="correct for the CTF", aliases=("ctf",))
    padding: int = parameter(2, help="oversampling of Fourier space", aliases=("pad",), ge=1, le=3, advanced=True)
    centre_classes: bool = parameter(
        True, help="bring the averages' centre of density to the middle", aliases=("center_classes",)
    )
    class_prior: bool = parameter(
        False, help="let large classes attract more (RELION does; few particles then end in few classes)", advanced=True
    )
    revive_until: float = parameter(
        0.6, help="fraction of the iterations in which dead classes restart as copies of large ones", ge=0, le=1,
        advanced=True,
    )  # fmt: skip
    adaptive_fraction: float = parameter(
        0.999, help="weight that the fine pass keeps", aliases=("adaptive_fraction",), gt=0, le=1, advanced=True
    )
    incr_size: int = parameter(
        10, help="shells looked at beyond the resolution reached", aliases=("incr_size",), ge=1, advanced=True
    )
    ini_high: float = parameter(
        0.0, help="resolution of the first averages (0: 15% of the diameter)", unit="A", ge=0, advanced=True
    )
    norm_correction: bool = parameter(True, help="estimate each particle's contrast", aliases=("norm",), advanced=True)
    scale_correction: bool = parameter(
        False, help="estimate each micrograph's (or rlnGroupName's) intensity scale", aliases=("scale",), advanced=True
    )
    initial_batch: int = parameter(
        0, help="particles in the first mini-batches (0: 0.5%, 200 to 10,000)", aliases=("grad_ini_subset",), ge=0,
        advanced=True,
    )  # fmt: skip
    final_batch: int = parameter(
        0, help="particles in the last mini-batches (0: 5%, 1,000 to 100,000)", aliases=("grad_fin_subset",), ge=0,
        advanced=True,
    )  # fmt: skip
    optimiser: str | None = parameter(
        None, help="go on from this iteration: a run_itNNN_optimiser.star, ours or RELION's (--continue names it)",
        advanced=True,
    )  # fmt: skip
    exact: bool = parameter(False, help="no bfloat16 in the coarse pass (slower)", advanced=True)


class Class2D(Job):
    """2D classification by expectation maximisation."""

    name: ClassVar[str] = "class2d"
    folder: ClassVar[str] = "Class2D"
    relion_type: ClassVar[str] = "relion.class2d.em"
    help: ClassVar[str] = "classify particles in 2D"
    Parameters: ClassVar[type[JobParameters]] = Class2DParameters
    shared: ClassVar[bool] = True

    @classmethod
    def continued(cls, optimiser: Path, project: Path) -> dict[str, Any]:
        """See Job."""
        return parameters_2d(optimiser, project)

    def run(self, params: Any, context: Context) -> Outputs:
        """Write run_itNNN_{data,model,optimiser,sampling}.star and _classes.mrcs after every iteration."""
        dataset, particles = _read(params, context)
        options = _options(params, context, particles)
        checkpoint = context.directory / "checkpoint.npz"
        resume = load_state(checkpoint, len(particles), options.n_classes) if context.resume else None
        if resume is None and params.optimiser:
            resume = classification(context.project / params.optimiser, context.project, particles, options.n_classes)
        if resume is not None:
            log.info("going on after iteration %d", resume.iteration)
        _log_plan(options, len(particles))
        state = resume
        left = options.iterations - (resume.iteration if resume else 0)
        every = _EVERY if params.mini_batches else 1
        for state in track(_states(params, particles, options, resume), "2D classes", left):
            if state.iteration % every and state.iteration < options.iterations:
                continue
            if context.writes:
                write_state(state, dataset, particles, options, context)
                save_state(checkpoint, state)
                context.iteration_done()
            log.info(
                "iteration %d: %.1f A, mean largest probability %.3f, mean significant samples %.0f",
                state.iteration,
                resolution_of_shell(particles, state.shell),
                state.average_max_probability,
                float(state.poses.n_significant.mean()),
            )
        assert state is not None
        return _outputs(state, particles, context)


def _states(
    params: Class2DParameters, particles: ParticleSet, options: Options2D, resume: Classification | None
) -> Iterator[Classification]:
    """The state after each iteration, of whichever algorithm was asked for."""
    start = Poses.unknown(len(particles))
    if not params.mini_batches:
        return classify_2d(particles, start, options, resume)
    plan = batch_plan(options.n_classes, params.initial_batch, params.final_batch)
    return classify_2d_batches(particles, start, options, plan, resume)


def _log_plan(options: Options2D, n_particles: int) -> None:
    sampling = in_plane_sampling(
        options.psi_step, options.offset_range, options.offset_step, oversampling=options.oversampling
    )
    log.info("%d particles; %s", n_particles, sampling.in_words(options.n_classes, "angles"))


def _read(params: Class2DParameters, context: Context) -> tuple[Dataset, ParticleSet]:
    dataset, particles = read_particles(
        params.input,
        context,
        ctf=params.ctf,
        diameter=params.particle_diameter,
        treatment=params.treatment(),
        reading=params,
    )
    if len(particles) < 2 * params.n_classes:
        raise InputError(
            context.project / params.input,
            f"{len(particles)} particles are too few for {params.n_classes} classes",
            f"Ask for at most {max(1, len(particles) // 2)} classes.",
        )
    return dataset, particles


def _options(params: Class2DParameters, context: Context, particles: ParticleSet) -> Options2D:
    few = {"max_significant": 5000} if params.mini_batches and not params.maximum_significants else {}
    return Options2D(
        n_classes=params.n_classes,
        diameter=mask_diameter(params.particle_diameter, particles),
        iterations=params.iterations or (200 if params.mini_batches else 25),
        tau2_fudge=params.tau2_fudge,
        psi_step=params.psi_step,
        offset_range=params.offset_range,
        offset_step=params.offset_step,
        oversampling=params.oversampling,
        padding=params.padding,
        adaptive_fraction=params.adaptive_fraction,
        incr_size=params.incr_size,
        ini_high=params.ini_high,
        centre_classes=params.centre_classes,
        norm_correction=params.norm_correction,
        scale_correction=params.scale_correction,
        low_precision=not params.exact,
        uniform_classes=not params.class_prior,
        revive_until=params.revive_until,
        memory=batch_memory(context.memory),
        seed=context.seed,
        device=context.device,
        **{**params.comparison(context), **few},
    )


def _outputs(state: Classification, particles: ParticleSet, context: Context) -> Outputs:
    root = iteration_root(context.directory, state.iteration)
    share = state.distribution.clamp(min=1e-12)
    used = float(torch.exp(-(share * torch.log(share)).sum()))
    resolution = resolution_of_shell(particles, state.shell)
    return Outputs(
        nodes={
            context.relative(Path(f"{root}_data.star")): "ParticleGroupMetadata.star.relion.class2d",
            context.relative(Path(f"{root}_optimiser.star")): "ProcessData.star.relion.optimiser.class2d",
        },
        metrics={
            "n_particles": len(particles),
            "n_classes": len(share),
            "effective_classes": used,
            "best_class_resolution_A": resolution,
            "mean_max_probability": state.average_max_probability,
        },
        summary=f"{len(particles)} particles in {len(share)} classes ({used:.1f} in effect), best {resolution:.1f} A",
    )
