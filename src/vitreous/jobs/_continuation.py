"""From the files of an iteration, ours or RELION's, to the state that the next iteration starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.core.fsc import resolution_shell
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_image, read_map
from vitreous.io.refinement_reading import SavedModel, SavedRun, option_values, place_of, read_run
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, AutoRefineState, HalfModel, Schedule
from vitreous.methods.refinement.classify_2d import Classification
from vitreous.methods.refinement.classify_3d_state import Changes, Classification3D, Options3D
from vitreous.methods.refinement.dataset import poses_of, scale_groups_of
from vitreous.methods.refinement.initial_reference import fit_reference
from vitreous.methods.refinement.particles import ParticleSet
from vitreous.methods.refinement.preprocess import NoiseModel


def parameters_2d(optimiser: Path, project: Path) -> dict[str, Any]:
    """class2d's parameters as a run's files tell them."""
    run = read_run(optimiser, project)
    values = option_values(run) | {
        "input": _relative(run.data, project),
        "n_classes": len(run.models[0].references),
        "psi_step": float(run.sampling["rlnPsiStep"]),
    }
    return values | {"iterations": max(int(run.optimiser["rlnNumberOfIterations"]), run.iteration + 1)}


def parameters_3d(optimiser: Path, project: Path) -> dict[str, Any]:
    """refine3d's parameters as a run's files tell them."""
    run = read_run(optimiser, project)
    local = run.optimiser.get("rlnAutoLocalSearchesHealpixOrder")
    order = int(run.sampling.get("rlnHealpixOrderOriginal", run.sampling["rlnHealpixOrder"]))
    values = option_values(run) | {
        "input": _relative(run.data, project),
        "reference": _relative(place_of(run.models[0].references[0], optimiser, project), project),
        "symmetry": str(run.sampling.get("rlnSymmetryGroup", "C1")),
        "healpix_order": order,
        "low_resol_join_halves": max(0.0, float(run.optimiser.get("rlnJoinHalvesUntilThisResolution", 40.0))),
    }
    return values | ({} if local is None else {"auto_local_healpix_order": int(local)})


def _relative(path: Path, project: Path) -> str:
    resolved = path.resolve()
    return str(resolved.relative_to(project.resolve()) if resolved.is_relative_to(project.resolve()) else resolved)


def classification(optimiser: Path, project: Path, particles: ParticleSet, n_classes: int) -> Classification:
    """The state of a 2D classification after an iteration. The particles are those of the run's data file."""
    run = read_run(optimiser, project)
    _check(optimiser, run, particles)
    model = run.models[0]
    if len(run.models) != 1 or int(model.general["rlnReferenceDimensionality"]) != 2:
        raise InputError(optimiser, "is not of a 2D classification", "Give one of class2d or relion_refine in 2D.")
    if len(model.references) != n_classes:
        raise InputError(optimiser, f"has {len(model.references)} classes, not {n_classes}", "Leave --K out.")
    stacks = []
    for name in model.references:
        number, _, file = name.rpartition("@")
        place = place_of(file, optimiser, project)
        stacks.append(torch.from_numpy(np.array(read_image(f"{number}@{place}" if number else place)[0])))
    return Classification(
        iteration=run.iteration,
        poses=poses_of(run.dataset, run.pixel_size),
        references=torch.stack(stacks).to(torch.float32),
        noise=_noise(model),
        sigma_offset=float(model.general["rlnSigmaOffsetsAngst"]) / run.pixel_size,
        distribution=torch.from_numpy(model.distribution),
        data_vs_prior=torch.from_numpy(model.ssnr),
        tau2=torch.from_numpy(model.tau2),
        sigma2=torch.from_numpy(model.sigma2),
        max_shell=_max_shell(model),
        shell=_shell(model, run.pixel_size),
        scale=_scale(run, model),
    )


def classification_3d(optimiser: Path, project: Path, particles: ParticleSet, options: Options3D) -> Classification3D:
    """The state of a 3D classification after an iteration. The particles are those of the run's data file."""
    run = read_run(optimiser, project)
    _check(optimiser, run, particles)
    model, pixel_size = run.models[0], run.pixel_size
    if int(model.general["rlnReferenceDimensionality"]) != 3:
        raise InputError(optimiser, "is of 2D classes", "Give the optimiser file of a 3D classification.")
    if len(run.models) != 1 or run.iteration < 1:
        what = "is of a refinement in halves, or of no iteration yet"
        raise InputError(optimiser, what, "Give the run_itNNN_optimiser.star of a 3D classification.")
    densities = [_reference(name, optimiser, project, run, particles) for name in model.references]
    directions = torch.zeros(options.n_classes, 0, dtype=torch.float64)
    # of symmetric groups RELION lists a part of the directions, and not the part that we search
    if options.align and model.directions is not None and model.directions.shape[1] == 12 * 4**options.healpix_order:
        directions = torch.from_numpy(model.directions * len(run.dataset))
    sureness = np.asarray(run.dataset.rows["max_probability"], dtype=np.float64)
    changes = [float(run.optimiser[f"rlnChangesOptimal{what}"]) for what in ("Classes", "Orientations", "Offsets")]
    return Classification3D(
        iteration=run.iteration,
        poses=replace(poses_of(run.dataset, pixel_size), max_probability=sureness),
        densities=torch.stack(densities),
        noise=_noise(model),
        sigma_offset=float(model.general["rlnSigmaOffsetsAngst"]) / pixel_size,
        distribution=torch.from_numpy(model.distribution),
        directions=directions,
        data_vs_prior=torch.from_numpy(model.ssnr),
        tau2=torch.from_numpy(model.tau2),
        sigma2=torch.from_numpy(model.sigma2),
        max_shell=_max_shell(model),
        shell=_shell(model, pixel_size),
        alike=False,
        changes=Changes(changes[0], changes[1], changes[2] / pixel_size),
        log_likelihood=float(model.general["rlnLogLikelihood"]),
    )


def auto_refine_state(
    optimiser: Path, project: Path, particles: ParticleSet, options: AutoRefineOptions
) -> AutoRefineState:
    """The state of an auto-refinement after an iteration.

    What the files do not hold starts anew: the prior on directions (flat until the next iteration has counted) and the
    resolution at which the present grid began.
    """
    run = read_run(optimiser, project)
    _check(optimiser, run, particles)
    if len(run.models) != 2 or "half_set" not in run.dataset.rows:
        raise InputError(optimiser, "is not of a refinement in two halves", "Give a run_itNNN_optimiser.star.")
    if int(run.optimiser.get("rlnHasConverged", 0)):
        raise InputError(optimiser, "has converged: nothing is left to do", "Give an earlier iteration's.")
    first = run.models[0]
    curve, pixel_size = torch.from_numpy(first.fsc[0]), run.pixel_size
    halves = [_half(model, optimiser, project, run, particles, options) for model in run.models]
    blank = torch.zeros(0, 0, 0)
    return AutoRefineState(
        iteration=run.iteration,
        poses=poses_of(run.dataset, pixel_size),
        half_sets=np.asarray(run.dataset.rows["half_set"], dtype=np.int64),
        halves=(halves[0], halves[1]),
        schedule=_schedule(run, particles),
        curve=curve,
        max_shell=_max_shell(first),
        shell=max(1, resolution_shell(curve[: _max_shell(first) + 1])),
        rotation_change=float(run.optimiser.get("rlnChangesOptimalOrientations", 999.0)),
        offset_change=float(run.optimiser.get("rlnChangesOptimalOffsets", 999.0)) / pixel_size,
        rotation_accuracy=first.accuracy[0],
        offset_accuracy=first.accuracy[1] / pixel_size,
        log_likelihood=float(first.general["rlnLogLikelihood"]),
        high_fsc_at_limit=bool(run.optimiser.get("rlnHasHighFscAtResolLimit", 0)),
        half_maps=blank[None],
        density=blank,
    )


def _half(
    model: SavedModel,
    optimiser: Path,
    project: Path,
    run: SavedRun,
    particles: ParticleSet,
    options: AutoRefineOptions,
) -> HalfModel:
    scale = _scale(run, model) if options.scale_correction else np.zeros(0)
    return HalfModel(
        density=_reference(model.references[0], optimiser, project, run, particles),
        noise=_noise(model),
        sigma_offset=float(model.general["rlnSigmaOffsetsAngst"]) / run.pixel_size,
        tau2=torch.from_numpy(model.tau2[0]),
        sigma2=torch.from_numpy(model.sigma2[0]),
        directions=torch.zeros(0, dtype=torch.float64),
        scale=torch.from_numpy(scale),
    )


def _reference(
    name: str, optimiser: Path, project: Path, run: SavedRun, particles: ParticleSet
) -> Float[Tensor, "box box box"]:
    """A map of the run in the particles' box."""
    given = read_map(place_of(name, optimiser, project))
    return fit_reference(Volume(given.density, run.pixel_size), particles.box, particles.pixel_size)


def _schedule(run: SavedRun, particles: ParticleSet) -> Schedule:
    optimiser, pixel_size = run.optimiser, run.pixel_size
    extent = particles.box * particles.pixel_size
    best = optimiser.get("rlnBestResolutionThusFar")
    shell = _shell(run.models[0], pixel_size) if best is None else round(float(best) * extent)
    return Schedule(
        order=int(run.sampling["rlnHealpixOrder"]),
        offset_range=float(run.sampling["rlnOffsetRange"]) / pixel_size,
        offset_step=float(run.sampling["rlnOffsetStep"]) / pixel_size,
        no_gain=int(optimiser.get("rlnNumberOfIterWithoutResolutionGain", 0)),
        no_change=int(optimiser.get("rlnNumberOfIterWithoutChangingAssignments", 0)),
        smallest_rotation=float(optimiser.get("rlnSmallestChangesOrientations", 999.0)),
        smallest_offset=float(optimiser.get("rlnSmallestChangesOffsets", 999.0)) / pixel_size,
        best_shell=max(1, shell),
    )


def _check(optimiser: Path, run: SavedRun, particles: ParticleSet) -> None:
    model = run.models[0].general
    box, pixel_size = int(model["rlnOriginalImageSize"]), run.pixel_size
    if len(run.dataset) != len(particles):
        what = f"is of {len(run.dataset)} particles, not {len(particles)}"
        raise InputError(optimiser, what, "Leave --i out: the run names its own.")
    if box != particles.box or abs(pixel_size / particles.pixel_size - 1.0) > 1e-3:
        what = f"has references of {box} pixels of {pixel_size:.4g} A, the particles {particles.box}"
        raise InputError(optimiser, what, "Give the particles that the run was made with.")


def _noise(model: SavedModel) -> NoiseModel:
    return NoiseModel(torch.from_numpy(np.maximum(model.noise, 1e-30)))


def _max_shell(model: SavedModel) -> int:
    return int(model.general["rlnCurrentImageSize"]) // 2


def _shell(model: SavedModel, pixel_size: float) -> int:
    extent = int(model.general["rlnOriginalImageSize"]) * pixel_size
    return max(1, round(extent / float(model.general["rlnCurrentResolution"])))


def _scale(run: SavedRun, model: SavedModel) -> NDArray[np.float64]:
    """Scales in the order of our groups; empty where they were not estimated."""
    if not int(run.optimiser.get("rlnDoCorrectScale", 0)):
        return np.zeros(0)
    return np.array([model.scale.get(name, 1.0) for name in scale_groups_of(run.dataset)[1]])
