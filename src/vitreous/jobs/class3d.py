"""Sort particles into 3D classes: several maps from one set, with alignment or at the poses they have."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.core.symmetry import canonical_name
from vitreous.data.dataset import Dataset
from vitreous.data.volume import Volume
from vitreous.io.half_maps import read_matching_mask
from vitreous.io.mrc import read_map
from vitreous.io.refinement_files import iteration_root
from vitreous.io.refinement_reading import data_of_optimiser, is_optimiser
from vitreous.io.relion import read_tables
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.jobs._class3d_files import write_state
from vitreous.jobs._continuation import classification_3d
from vitreous.jobs._model_file import resolution_of_shell, ssnr_resolution
from vitreous.jobs._particles import ComparisonParameters, mask_diameter, read_particles
from vitreous.methods.refinement.classify_3d import classify_3d
from vitreous.methods.refinement.classify_3d_search import global_sampling
from vitreous.methods.refinement.classify_3d_state import (
    Classification3D,
    Options3D,
    state_from_arrays,
    state_to_arrays,
)
from vitreous.methods.refinement.dataset import has_poses, poses_of
from vitreous.methods.refinement.initial_reference import fit_reference
from vitreous.methods.refinement.particles import ParticleSet
from vitreous.runtime.checkpoint import load_checkpoint, save_checkpoint
from vitreous.runtime.memory import batch_memory
from vitreous.runtime.progress import Pace, track

log = logging.getLogger(__name__)
_MAP_BYTES = 5  # float32 maps of a box held for each class: references, tau2 on the way, the new map
_LEAST_BATCHES = 256 << 20


class Class3DParameters(ComparisonParameters):
    """What `class3d` takes."""

    input: str = parameter(
        help="STAR file of particles, or a run_itNNN_optimiser.star (RELION's too) to go on from", aliases=("i",)
    )
    reference: list[str] = parameter(
        [], help="starting map, or one a class, or a STAR file that lists them (any box and voxel size)",
        aliases=("ref",),
    )  # fmt: skip
    n_classes: int | None = parameter(
        None, help="number of classes (default: 4 from one map, else one a map)", aliases=("K",), ge=1, le=100
    )
    iterations: int = parameter(25, help="number of iterations", aliases=("iter",), ge=1, le=1000)
    symmetry: str = parameter("C1", help="point group", aliases=("sym",))
    particle_diameter: float = parameter(
        0.0, help="diameter of the spherical mask (0: 90% of the box)", unit="A", aliases=("particle_diameter",), ge=0
    )
    mask: str | None = parameter(None, help="solvent mask for the references", aliases=("solvent_mask",))
    ini_high: float = parameter(60.0, help="low-pass of the starting maps", unit="A", aliases=("ini_high",), gt=0)
    tau2_fudge: float = parameter(
        4.0, help="regularisation T: more lets finer detail in", aliases=("tau2_fudge",), gt=0
    )
    skip_align: bool = parameter(
        False, help="keep the particles' poses and compare classes alone", aliases=("skip_align",)
    )
    healpix_order: int = parameter(
        2, help="angular grid before oversampling: 2 is 15 deg, 3 is 7.5 deg", aliases=("healpix_order",), ge=0, le=7
    )
    offset_range: float = parameter(5.0, help="range of shifts", unit="px", aliases=("offset_range",), ge=0)
    offset_step: float = parameter(
        2.0, help="step of shifts before oversampling", unit="px", aliases=("offset_step",), gt=0
    )
    sigma_angle: float = parameter(
        0.0, help="search locally, with a prior of this width about the particles' poses (0: everywhere)", unit="deg",
        aliases=("sigma_ang",), ge=0, le=60,
    )  # fmt: skip
    firstiter_cc: bool = parameter(
        False, help="align by cross-correlation in the first iteration", aliases=("firstiter_cc",)
    )
    absolute_greyscale: bool = parameter(
        False, help="the starting maps have the grey values of maps of these particles", advanced=True
    )
    ctf: bool = parameter(True, help="correct for the CTF", aliases=("ctf",))
    class_prior: bool = parameter(True, help="let large classes attract more, as RELION does", advanced=True)
    oversampling: int = parameter(1, help="halvings of the steps for likely samples", ge=0, le=3, advanced=True)
    adaptive_fraction: float = parameter(
        0.999, help="weight that the fine pass keeps", aliases=("adaptive_fraction",), gt=0, le=1, advanced=True
    )
    incr_size: int = parameter(
        10, help="shells looked at beyond the resolution reached", aliases=("incr_size",), ge=1, advanced=True
    )
    padding: int = parameter(2, help="oversampling of Fourier space", aliases=("pad",), ge=1, le=3, advanced=True)
    gridding_iterations: int = parameter(
        0, help="iterations of gridding weights (0: RELION's skip_gridding)", ge=0, advanced=True
    )
    norm_correction: bool = parameter(True, help="estimate each particle's contrast", aliases=("norm",), advanced=True)
    exact: bool = parameter(False, help="no bfloat16 in the coarse pass (slower)", advanced=True)


class Class3D(Job):
    """3D classification by expectation maximisation."""

    name: ClassVar[str] = "class3d"
    folder: ClassVar[str] = "Class3D"
    relion_type: ClassVar[str] = "relion.class3d"
    help: ClassVar[str] = "classify particles in 3D"
    Parameters: ClassVar[type[JobParameters]] = Class3DParameters
    shared: ClassVar[bool] = True

    def run(self, params: Any, context: Context) -> Outputs:
        """Write run_itNNN_{data,model,optimiser,sampling}.star and a map a class after every iteration."""
        given = context.project / params.input
        star = data_of_optimiser(given, context.project) if is_optimiser(params.input) else params.input
        dataset, particles = read_particles(
            star,
            context,
            ctf=params.ctf,
            diameter=params.particle_diameter,
            treatment=params.treatment(),
            reading=params,
        )
        references = _references(params, context, particles)
        options = _options(params, context, particles, len(references))
        _check(params, dataset, options, len(references), context)
        checkpoint = context.directory / "checkpoint.npz"
        resume = _resume(checkpoint, particles, options) if context.resume else None
        if resume is None and is_optimiser(params.input):
            resume = classification_3d(given, context.project, particles, options)
        if resume is not None:
            log.info("going on after iteration %d", resume.iteration)
        _log_plan(options, len(particles))
        state, poses = resume, poses_of(dataset, particles.pixel_size)
        left = max(0, options.iterations - (resume.iteration if resume else 0))
        pace = Pace(left)
        for state in track(classify_3d(particles, poses, references, options, resume), "3D classes", left):
            if context.writes:
                write_state(state, dataset, particles, options, context)
                save_checkpoint(checkpoint, state_to_arrays(state))
                context.iteration_done()
            _log(state, particles, pace.step())
        assert state is not None
        return _outputs(state, particles, context)


def _references(params: Class3DParameters, context: Context, particles: ParticleSet) -> Float[Tensor, "n box box box"]:
    """The starting maps in the particles' pixel size and box."""
    given = params.reference or ([params.input] if is_optimiser(params.input) else [])
    if not given:
        raise InputError("--reference", "is needed", "Give a starting map; initial-model makes one.")
    names = [name for one in given for name in _listed(context.project / one, one)]
    maps = [fit_reference(read_map(context.project / name), particles.box, particles.pixel_size) for name in names]
    return torch.stack(maps)


def _listed(path: Path, name: str) -> list[str]:
    """The map itself, or those that a STAR file lists (also a _model.star's classes)."""
    if path.suffix != ".star":
        return [name]
    if is_optimiser(name):
        path = path.with_name(path.name.replace("_optimiser.star", "_model.star"))
    for table in read_tables(path).values():
        if "reference_image" in table:
            return [str(one) for one in table["reference_image"]]
    raise InputError(path, "lists no _rlnReferenceImage", "Give a map, a list of maps, or a _model.star.")


def _options(params: Class3DParameters, context: Context, particles: ParticleSet, n_references: int) -> Options3D:
    mask = None
    if params.mask:
        like = Volume(torch.zeros((particles.box,) * 3), particles.pixel_size)
        mask = read_matching_mask(context.project / params.mask, like).density
    from_one = n_references == 1 and not is_optimiser(params.input)
    n_classes = params.n_classes or (4 if from_one else n_references)
    return Options3D(
        n_classes=n_classes,
        diameter=mask_diameter(params.particle_diameter, particles),
        symmetry=canonical_name(params.symmetry),
        iterations=params.iterations,
        tau2_fudge=params.tau2_fudge,
        ini_high=params.ini_high,
        align=not params.skip_align,
        healpix_order=params.healpix_order,
        oversampling=params.oversampling,
        offset_range=params.offset_range,
        offset_step=params.offset_step,
        sigma_angle=params.sigma_angle,
        first_by_correlation=params.firstiter_cc,
        absolute_grey=params.absolute_greyscale,
        uniform_classes=not params.class_prior,
        adaptive_fraction=params.adaptive_fraction,
        incr_size=params.incr_size,
        padding=params.padding,
        gridding_iterations=params.gridding_iterations,
        norm_correction=params.norm_correction,
        low_precision=not params.exact,
        mask=mask,
        memory=_batch_memory(n_classes, particles.box, params.padding, context.memory),
        seed=context.seed,
        device=context.device,
        **params.comparison(context),
    )


def _batch_memory(n_classes: int, box: int, padding: int, budget: int) -> int:
    """Bytes that the maps at full size leave for batches of images; said at the start, not found out at the end."""
    grid = (padding * box + 3) ** 2 * (padding * box // 2 + 2)
    # of each class a projectable transform, and sums with their weights; a copy of one while it is being solved
    fixed = n_classes * (_MAP_BYTES * 4 * box**3 + 20 * grid) + 60 * grid
    left = budget - fixed
    log.info("memory: %.1f GB for %d maps at full size, of %.1f GB", fixed / 1e9, n_classes, budget / 1e9)
    if left < _LEAST_BATCHES:
        wanted = (fixed + _LEAST_BATCHES) / 1e9
        what = f"{n_classes} classes of box {box} need {wanted:.1f} GB, {budget / 1e9:.1f} are there"
        raise InputError("--K", what, "Ask for fewer classes, --pad 1, or smaller images.")
    return batch_memory(left)


def _check(params: Class3DParameters, dataset: Dataset, options: Options3D, n_maps: int, context: Context) -> None:
    """What does not go together. Raises InputError."""
    path = context.project / params.input
    if len(dataset) < 2 * options.n_classes:
        what = f"{len(dataset)} particles are too few for {options.n_classes} classes"
        raise InputError(path, what, f"Ask for at most {max(1, len(dataset) // 2)} classes.")
    if (params.skip_align or params.sigma_angle > 0) and not has_poses(dataset):
        option = "--skip-align" if params.skip_align else "--sigma-angle"
        raise InputError(path, f"has no poses, which {option} starts from", "Give the particles of a refinement.")
    if params.sigma_angle > 0 and params.firstiter_cc and not params.skip_align:
        what = "is for searches everywhere, not with --sigma-angle"
        raise InputError("--firstiter-cc", what, "Leave it out: grey values are fitted anyway.")
    if n_maps != options.n_classes and (n_maps > 1 or is_optimiser(params.input)):
        what = f"asks for {options.n_classes} classes from {n_maps} maps"
        raise InputError("--K", what, "Give one map, or one for each class.")


def _resume(checkpoint: Path, particles: ParticleSet, options: Options3D) -> Classification3D | None:
    arrays = load_checkpoint(checkpoint)
    if arrays is None:
        return None
    if len(arrays["pose_classes"]) != len(particles) or len(arrays["densities"]) != options.n_classes:
        log.warning("%s belongs to other particles or another number of classes: starting anew", checkpoint)
        return None
    return state_from_arrays(arrays)


def _log_plan(options: Options3D, n_particles: int) -> None:
    """How much there is to compare: RELION's hidden variable sampling points."""
    if not options.align:
        log.info("%d particles at their own poses in %d classes", n_particles, options.n_classes)
        return
    if options.sigma_angle > 0:
        log.info("%d particles, searched within %.1f deg of their poses", n_particles, 3 * options.sigma_angle)
        return
    sampling, _ = global_sampling(options)
    log.info("%d particles; %s", n_particles, sampling.in_words(options.n_classes))


def _log(state: Classification3D, particles: ParticleSet, left: str) -> None:
    log.info(
        "iteration %d: best class %.2f A; %.1f%% of the particles changed class, poses moved %.2f deg and %.2f A; "
        "classes %s; mean largest probability %.3f, significant samples %.0f; %s",
        state.iteration,
        resolution_of_shell(particles, state.shell),
        100 * state.changes.classes,
        state.changes.rotations,
        state.changes.offsets * particles.pixel_size,
        ", ".join(f"{100 * share:.0f}%" for share in state.distribution.tolist()),
        state.average_max_probability,
        float(state.poses.n_significant.mean()),
        left,
    )


def _outputs(state: Classification3D, particles: ParticleSet, context: Context) -> Outputs:
    root = iteration_root(context.directory, state.iteration)
    maps = [Path(f"{root}_class{k + 1:03d}.mrc") for k in range(len(state.distribution))]
    share = state.distribution.clamp(min=1e-12)
    used = float(torch.exp(-(share * torch.log(share)).sum()))
    best = min(ssnr_resolution(particles, curve.numpy()) for curve in state.data_vs_prior)
    counts = np.bincount(state.poses.classes, minlength=len(maps))
    return Outputs(
        nodes={
            context.relative(Path(f"{root}_data.star")): "ParticleGroupMetadata.star.relion.class3d",
            context.relative(Path(f"{root}_optimiser.star")): "ProcessData.star.relion.optimiser.class3d",
            **{context.relative(path): "DensityMap.mrc.relion.class3d" for path in maps},
        },
        metrics={
            "n_particles": len(particles),
            "n_classes": len(maps),
            "effective_classes": round(used, 3),
            "largest_class_particles": int(counts.max()),
            "best_class_resolution_A": round(best, 3),
            "changed_class_fraction": round(state.changes.classes, 4),
            "mean_max_probability": round(state.average_max_probability, 4),
        },
        summary=f"{len(particles)} particles in {len(maps)} 3D classes ("
        + ", ".join(f"{100 * count / len(particles):.0f}%" for count in counts)
        + f"), best {best:.1f} A",
    )
