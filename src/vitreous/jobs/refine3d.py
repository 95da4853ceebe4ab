"""Refine poses and map to the highest resolution, two halves apart (gold standard)."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.core.so3 import angular_step
from vitreous.core.symmetry import canonical_name
from vitreous.data.dataset import Dataset
from vitreous.data.volume import Volume
from vitreous.io.half_maps import read_matching_mask
from vitreous.io.mrc import read_map
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.jobs._continuation import auto_refine_state, parameters_3d
from vitreous.jobs._external_reconstruct import external_regulariser
from vitreous.jobs._model_file import resolution_of_shell
from vitreous.jobs._orientation_options import search_options
from vitreous.jobs._particles import ComparisonParameters, read_particles
from vitreous.jobs._refine3d_files import write_end, write_state
from vitreous.methods.maps.half_map_fsc import half_map_fsc
from vitreous.methods.refinement.adaptive_prior import AdaptivePrior
from vitreous.methods.refinement.auto_refine import auto_refine
from vitreous.methods.refinement.auto_refine_state import (
    AutoRefineOptions,
    AutoRefineState,
    split_halves,
    state_from_arrays,
    state_to_arrays,
)
from vitreous.methods.refinement.common_grid import Grid
from vitreous.methods.refinement.dataset import poses_of
from vitreous.methods.refinement.initial_reference import fit_reference
from vitreous.methods.refinement.memory_plan import MemoryPlan, Prior, plan_auto_refine
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.regularise import Regulariser, classic
from vitreous.runtime.checkpoint import load_checkpoint, save_checkpoint
from vitreous.runtime.memory import batch_memory, free_memory
from vitreous.runtime.progress import track
from vitreous.runtime.ranks import ALONE, Ranks

log = logging.getLogger(__name__)


class Refine3DParameters(ComparisonParameters):
    """What `refine3d` takes."""

    input: str = parameter(help="STAR file of particles", aliases=("i",))
    reference: str = parameter(help="starting map (any box and voxel size)", aliases=("ref",))
    symmetry: str = parameter("C1", help="point group", aliases=("sym",))
    particle_diameter: float = parameter(
        0.0, help="diameter of the spherical mask (0: 90% of the box)", unit="A", aliases=("particle_diameter",), ge=0
    )
    mask: str | None = parameter(None, help="solvent mask for the references", aliases=("solvent_mask",))
    solvent_correct_fsc: bool = parameter(
        False, help="judge the resolution by the FSC in the mask, phase-randomised", aliases=("solvent_correct_fsc",)
    )
    ini_high: float = parameter(60.0, help="low-pass of the starting map", unit="A", aliases=("ini_high",), gt=0)
    absolute_greyscale: bool = parameter(
        False, help="the starting map has the grey values of a map of these particles", advanced=True
    )
    healpix_order: int | None = parameter(
        None,
        help="first grid, before oversampling: 2 is 15 deg (default: 2; 3 for T, O, I)",
        aliases=("healpix_order",),
        ge=0,
        le=7,
    )
    offset_range: float = parameter(5.0, help="first range of shifts", unit="px", aliases=("offset_range",), ge=0)
    offset_step: float = parameter(
        2.0, help="first step of shifts, before oversampling", unit="px", aliases=("offset_step",), gt=0
    )
    auto_local_healpix_order: int = parameter(
        4, help="grid from which searches are local", aliases=("auto_local_healpix_order",), ge=1, le=9
    )
    sigma_ang: float = parameter(
        0.0, help="search locally from the start, about the angles given, with this spread (0: globally)", unit="deg",
        ge=0, le=30, advanced=True,
    )  # fmt: skip
    limit_tilt: float = parameter(
        0.0, help="positive: only side views, tilts of at least this; negative: only top views, at most (0: all)",
        unit="deg", ge=-90, le=90, advanced=True,
    )  # fmt: skip
    sigma_tilt: float = parameter(
        0.0, help="spread of the prior on the tilt, rlnAngleTiltPrior (0: none)", unit="deg", ge=0, advanced=True
    )
    sigma_psi: float = parameter(
        0.0, help="spread of the prior on psi, rlnAnglePsiPrior (0: none)", unit="deg", ge=0, advanced=True
    )
    relax_symmetry: str = parameter(
        "C1", help="point group whose mates local searches look at as well (with --sym C1)", aliases=("relax_sym",),
        advanced=True,
    )  # fmt: skip
    low_resol_join_halves: float = parameter(
        40.0, help="the halves share what is coarser than this", unit="A", aliases=("low_resol_join_halves",), ge=0
    )
    ctf: bool = parameter(True, help="correct for the CTF", aliases=("ctf",))
    tau2_fudge: float = parameter(1.0, help="regularisation T", aliases=("tau2_fudge",), gt=0, advanced=True)
    padding: int = parameter(2, help="oversampling of Fourier space", aliases=("pad",), ge=1, le=3, advanced=True)
    oversampling: int = parameter(1, help="halvings of the steps for likely samples", ge=0, le=3, advanced=True)
    adaptive_fraction: float = parameter(
        0.999, help="weight that the fine pass keeps", aliases=("adaptive_fraction",), gt=0, le=1, advanced=True
    )
    incr_size: int = parameter(
        10, help="shells looked at beyond the resolution reached", aliases=("incr_size",), ge=1, advanced=True
    )
    gridding_iterations: int = parameter(0, help="iterations of gridding weights", ge=0, advanced=True)
    skip_gridding: bool = parameter(
        True, help="divide by the weights as they are (false: ten iterations of gridding weights)", advanced=True
    )
    regularise: Literal["classic", "adaptive"] = parameter(
        "classic", help="one prior a shell, or one that follows the local agreement of the halves"
    )
    external_reconstruct: bool = parameter(
        False, help="let another program make the references (RELION's files)", aliases=("external_reconstruct",)
    )
    external_reconstruct_exe: str = parameter(
        "",
        help="that program, called with a STAR file (empty: $RELION_EXTERNAL_RECONSTRUCT_EXECUTABLE, else RELION's)",
        advanced=True,
    )
    norm_correction: bool = parameter(True, help="estimate each particle's contrast", aliases=("norm",), advanced=True)
    scale_correction: bool = parameter(
        False, help="estimate each micrograph's (or rlnGroupName's) intensity scale", aliases=("scale",), advanced=True
    )
    max_iterations: int = parameter(50, help="stop here, converged or not", ge=1, advanced=True)
    optimiser: str | None = parameter(
        None, help="go on from this iteration: a run_itNNN_optimiser.star, ours or RELION's (--continue names it)",
        advanced=True,
    )  # fmt: skip
    exact: bool = parameter(False, help="no bfloat16 in the coarse pass (slower)", advanced=True)


class Refine3D(Job):
    """Gold-standard auto-refine."""

    name: ClassVar[str] = "refine3d"
    folder: ClassVar[str] = "Refine3D"
    relion_type: ClassVar[str] = "relion.refine3d"
    help: ClassVar[str] = "refine a 3D map to high resolution, two halves apart"
    Parameters: ClassVar[type[JobParameters]] = Refine3DParameters
    shared: ClassVar[bool] = True

    @classmethod
    def continued(cls, optimiser: Path, project: Path) -> dict[str, Any]:
        """See Job."""
        return parameters_3d(optimiser, project)

    def run(self, params: Any, context: Context) -> Outputs:
        """Write run_itNNN_* after every iteration, run_* and the half-maps at the end."""
        given = read_map(context.project / params.reference)
        dataset, particles = _read(params, context, Grid(given.box, given.voxel_size))
        options = replace(_options(params, context, particles), **search_options(params, dataset, particles))
        _check_memory(params, context, particles, options)
        reference = fit_reference(given, particles.box, particles.pixel_size)
        checkpoint = context.directory / "checkpoint.npz"
        resume = _resume(checkpoint, len(particles)) if context.resume else None
        if resume is None and params.optimiser:
            resume = auto_refine_state(context.project / params.optimiser, context.project, particles, options)
        if resume is not None:
            log.info("going on after iteration %d", resume.iteration)
        half_sets = resume.half_sets if resume is not None else _half_sets(dataset, context.seed)
        start, state = Poses.unknown(len(particles)), resume
        if params.sigma_ang > 0:
            start = poses_of(dataset, particles.pixel_size)
        for state in track(auto_refine(particles, start, half_sets, reference, options, resume), "refinement"):
            if context.writes:
                write_state(state, dataset, particles, options, context)
                save_checkpoint(checkpoint, state_to_arrays(state))
                context.iteration_done()
            _log(state, particles)
        assert state is not None
        if context.writes:
            write_end(state, dataset, particles, options, context)
        return _outputs(state, particles, context)


def _read(params: Refine3DParameters, context: Context, like: Grid) -> tuple[Dataset, ParticleSet]:
    dataset, particles = read_particles(
        params.input,
        context,
        ctf=params.ctf,
        diameter=params.particle_diameter,
        like=like,
        treatment=params.treatment(),
        reading=params,
    )
    if len(particles) < 4:
        path = context.project / params.input
        raise InputError(path, f"{len(particles)} particles are too few for two halves", "Give more particles.")
    return dataset, particles


def _half_sets(dataset: Dataset, seed: int) -> NDArray[np.int64]:
    """The halves the particles come with, else random ones."""
    if "half_set" in dataset.rows:
        given = np.asarray(dataset.rows["half_set"], dtype=np.int64)
        if (given == 1).any() and (given == 2).any() and np.isin(given, (1, 2)).all():
            return given
        log.warning("the column half_set does not hold two halves: drawing new ones")
    return split_halves(len(dataset), seed)


def _options(params: Refine3DParameters, context: Context, particles: ParticleSet) -> AutoRefineOptions:
    mask = None
    if params.mask:
        like = Volume(torch.zeros((particles.box,) * 3), particles.pixel_size)
        mask = read_matching_mask(context.project / params.mask, like).density
    options = AutoRefineOptions(
        symmetry=canonical_name(params.symmetry),
        diameter=params.particle_diameter or 0.9 * particles.box * particles.pixel_size,
        ini_high=params.ini_high,
        healpix_order=params.healpix_order,
        oversampling=params.oversampling,
        offset_range=params.offset_range,
        offset_step=params.offset_step,
        local_order=params.auto_local_healpix_order,
        join_halves=params.low_resol_join_halves,
        tau2_fudge=params.tau2_fudge,
        padding=params.padding,
        adaptive_fraction=params.adaptive_fraction,
        incr_size=params.incr_size,
        gridding_iterations=params.gridding_iterations or (0 if params.skip_gridding else 10),
        norm_correction=params.norm_correction,
        scale_correction=params.scale_correction,
        absolute_grey=params.absolute_greyscale,
        low_precision=not params.exact,
        mask=mask,
        max_iterations=params.max_iterations,
        memory=batch_memory(context.memory),
        seed=context.seed,
        device=context.device,
        regularise=_regulariser(params, context, particles.pixel_size),
        **params.comparison(context),
        **_fsc_option(params, mask, particles.pixel_size),
    )
    if options.first_order > options.local_order:
        raise InputError(
            "--healpix-order",
            f"{options.first_order} is beyond the order {options.local_order} where local searches start",
            "Start coarser: no pose is known yet.",
        )
    return options


def _check_memory(
    params: Refine3DParameters, context: Context, particles: ParticleSet, options: AutoRefineOptions
) -> None:
    """Say what the final iteration will need; refuse now what would die then."""
    prior: Prior = "external" if params.external_reconstruct else params.regularise

    def plan(padding: int) -> MemoryPlan:
        how = replace(options, padding=padding)
        size = (particles.box, particles.pixel_size, len(particles))
        return plan_auto_refine(*size, how, prior, corrected_fsc=params.solvent_correct_fsc)

    planned = plan(options.padding)
    log.info("%s; to plan with: %.1f GB", planned.sentence(), context.memory / 1e9)
    if planned.peak > context.memory:
        less = plan(1).peak
        remedy = f"--pad 1 needs {less / 1e9:.1f} GB" if options.padding > 1 else "--max-memory sets how much there is"
        what = (
            f"the final iteration needs {planned.peak / 1e9:.1f} GB, there are {context.memory / 1e9:.1f} to plan with"
        )
        raise InputError(
            f"box {particles.box}, padding {options.padding}", what, f"{remedy}; a smaller box needs less."
        )
    if context.device.type == "cuda" and planned.on_device > free_memory(context.device):
        what = f"needs {planned.on_device / 1e9:.1f} GB on the GPU, {free_memory(context.device) / 1e9:.1f} are free"
        raise InputError(f"box {particles.box}, padding {options.padding}", what, "Use --pad 1 or --cpu.")


def _regulariser(params: Refine3DParameters, context: Context, pixel_size: float) -> Regulariser:
    if params.external_reconstruct:
        if params.regularise != "classic":
            raise InputError("--external-reconstruct", f"excludes --regularise {params.regularise}", "Leave one out.")
        external = external_regulariser(params.external_reconstruct_exe, context, pixel_size)
        return _by_first_rank(external, context.ranks or ALONE)
    return AdaptivePrior() if params.regularise == "adaptive" else classic


def _by_first_rank(regularise: Regulariser, ranks: Ranks) -> Regulariser:
    """The user's program runs once; every rank gets its maps."""
    return lambda evidence: ranks.share(list(regularise(evidence)) if ranks.is_first else None)


def _fsc_option(params: Refine3DParameters, mask: torch.Tensor | None, pixel_size: float) -> dict[str, Any]:
    if not params.solvent_correct_fsc:
        return {}
    if mask is None:
        raise InputError("--solvent-correct-fsc", "needs a mask", "Give one with --mask.")
    return {"half_map_fsc": lambda first, second: half_map_fsc(first, second, pixel_size, mask).corrected}


def _resume(checkpoint: Path, n_particles: int) -> AutoRefineState | None:
    arrays = load_checkpoint(checkpoint)
    if arrays is None:
        return None
    if len(arrays["half_sets"]) != n_particles:
        log.warning("%s belongs to other particles: starting anew", checkpoint)
        return None
    return state_from_arrays(arrays)


def _log(state: AutoRefineState, particles: ParticleSet) -> None:
    log.info(
        "iteration %d: %.2f A, grid %.2f deg, poses moved %.2f deg and %.2f A, accuracy %.2f deg and %.2f A, "
        "mean largest probability %.3f, significant samples %.0f",
        state.iteration,
        resolution_of_shell(particles, state.shell),
        angular_step(state.schedule.order),
        state.rotation_change,
        state.offset_change * particles.pixel_size,
        state.rotation_accuracy,
        state.offset_accuracy * particles.pixel_size,
        state.average_max_probability,
        float(state.poses.n_significant.mean()),
    )


def _outputs(state: AutoRefineState, particles: ParticleSet, context: Context) -> Outputs:
    def name(file: str) -> str:
        return context.relative(context.directory / file)

    resolution = resolution_of_shell(particles, state.shell)
    accuracy = (state.rotation_accuracy, state.offset_accuracy * particles.pixel_size)
    return Outputs(
        nodes={
            name("run_data.star"): "ParticleGroupMetadata.star.relion.refine3d",
            name("run_optimiser.star"): "ProcessData.star.relion.optimiser.refine3d",
            name("run_half1_class001_unfil.mrc"): "DensityMap.mrc.relion.halfmap.refine3d",
            name("run_class001.mrc"): "DensityMap.mrc.relion.refine3d",
        },
        metrics={
            "n_particles": len(particles),
            "n_iterations": state.iteration,
            "fsc143_resolution_A": round(resolution, 3),
            "angular_accuracy_deg": round(accuracy[0], 3),
            "offset_accuracy_A": round(accuracy[1], 3),
            "mean_max_probability": round(state.average_max_probability, 4),
        },
        summary=f"{len(particles)} particles, {resolution:.2f} A (FSC 0.143) after {state.iteration} iterations; "
        f"accuracy {accuracy[0]:.2f} deg, {accuracy[1]:.2f} A",
    )
