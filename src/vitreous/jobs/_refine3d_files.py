"""The files that auto-refine leaves after each iteration and at its end, under RELION's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitreous.core.so3 import angular_step
from vitreous.data.dataset import Dataset
from vitreous.data.volume import Volume
from vitreous.io.mrc import write_map
from vitreous.io.refinement_files import (
    ClassModel,
    ModelFile,
    OptimiserFile,
    SamplingFile,
    iteration_root,
    write_iteration,
    write_model,
)
from vitreous.job import Context
from vitreous.jobs._model_file import model_file, resolution_of_shell
from vitreous.jobs._particles import optimiser_labels, scale_groups
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, AutoRefineState, HalfModel
from vitreous.methods.refinement.dataset import with_poses
from vitreous.methods.refinement.gold_standard import signal_to_noise
from vitreous.methods.refinement.particles import ParticleSet


def _rows(state: AutoRefineState, dataset: Dataset, pixel_size: float) -> Dataset:
    return with_poses(dataset, state.poses, pixel_size).with_columns(half_set=state.half_sets)


def write_state(
    state: AutoRefineState, dataset: Dataset, particles: ParticleSet, options: AutoRefineOptions, context: Context
) -> None:
    """run_itNNN_half1_model.star and so on; the optimiser last, which says that the iteration is whole."""
    for number, half in enumerate(state.halves, 1):
        root = iteration_root(context.directory, state.iteration, number)
        path = Path(f"{root}_class001.mrc")
        write_map(path, Volume(half.density, particles.pixel_size))
        write_model(
            Path(f"{root}_model.star"), _model(state, half, dataset, particles, options, context.relative(path))
        )
    root = iteration_root(context.directory, state.iteration)
    _write_iteration(root, state, dataset, particles, options, context, None)


def write_end(
    state: AutoRefineState, dataset: Dataset, particles: ParticleSet, options: AutoRefineOptions, context: Context
) -> None:
    """run_class001.mrc, the unfiltered half-maps, run_data.star and its companions."""
    pixel_size = particles.pixel_size
    for number, half_map in enumerate(state.half_maps, 1):
        root = iteration_root(context.directory, None, number)
        write_map(Path(f"{root}_class001_unfil.mrc"), Volume(half_map, pixel_size))
    root = iteration_root(context.directory, None)
    path = Path(f"{root}_class001.mrc")
    write_map(path, Volume(state.density, pixel_size))
    model = _model(state, state.halves[0], dataset, particles, options, context.relative(path))
    _write_iteration(root, state, dataset, particles, options, context, model)


def _write_iteration(
    root: Path,
    state: AutoRefineState,
    dataset: Dataset,
    particles: ParticleSet,
    options: AutoRefineOptions,
    context: Context,
    model: ModelFile | None,
) -> None:
    schedule = state.schedule
    optimiser = OptimiserFile(
        state.iteration,
        options.max_iterations,
        options.diameter,
        options.oversampling,
        options.adaptive_fraction,
        options.seed,
        split_halves=model is None,
        more={
            **optimiser_labels(particles, options),
            "rlnJoinHalvesUntilThisResolution": options.join_halves,
            "rlnAutoLocalSearchesHealpixOrder": options.local_order,
            **_progress(state, particles),
        },
    )
    sampling = SamplingFile(
        angular_step(schedule.order),
        schedule.offset_range,
        schedule.offset_step,
        particles.pixel_size,
        options.perturb,
        schedule.order,
        options.symmetry,
    )
    rows = _rows(state, dataset, particles.pixel_size)
    write_iteration(root, context.project, rows, model, optimiser, sampling)


def _progress(state: AutoRefineState, particles: ParticleSet) -> dict[str, Any]:
    """Labels of RELION's optimiser file that tell how auto-refine goes."""
    schedule, pixel_size = state.schedule, particles.pixel_size
    return {
        "rlnDoAutoRefine": 1,
        "rlnBestResolutionThusFar": schedule.best_shell / (particles.box * pixel_size),
        "rlnNumberOfIterWithoutResolutionGain": schedule.no_gain,
        "rlnNumberOfIterWithoutChangingAssignments": schedule.no_change,
        "rlnChangesOptimalOrientations": state.rotation_change,
        "rlnChangesOptimalOffsets": state.offset_change * pixel_size,
        "rlnSmallestChangesOrientations": schedule.smallest_rotation,
        "rlnSmallestChangesOffsets": schedule.smallest_offset * pixel_size,
        "rlnHasConverged": int(schedule.final),
        "rlnHasHighFscAtResolLimit": int(state.high_fsc_at_limit),
    }


def _model(
    state: AutoRefineState,
    half: HalfModel,
    dataset: Dataset,
    particles: ParticleSet,
    options: AutoRefineOptions,
    reference: str,
) -> ModelFile:
    resolution = resolution_of_shell(particles, state.shell)
    one = ClassModel(
        reference=reference,
        distribution=1.0,
        resolution=resolution,
        ssnr=signal_to_noise(state.curve).numpy(),
        sigma2=half.sigma2.numpy(),
        tau2=half.tau2.numpy(),
        fsc=state.curve.numpy(),
        accuracy_rotations=state.rotation_accuracy,
        accuracy_translations=state.offset_accuracy * particles.pixel_size,
    )
    return model_file(
        particles,
        state.poses,
        [one],
        half.noise,
        shells=(state.shell, state.max_shell),
        sigma_offset=half.sigma_offset,
        log_likelihood=state.log_likelihood,
        tau2_fudge=options.tau2_fudge,
        padding=options.padding,
        scale_groups=scale_groups(dataset, half.scale.numpy()),
    )
