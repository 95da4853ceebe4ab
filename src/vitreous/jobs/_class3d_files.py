"""The files that 3D classification leaves after each iteration, under RELION's names, and the way back from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.core.so3 import angular_step
from vitreous.data.dataset import Dataset
from vitreous.data.volume import Volume
from vitreous.io.mrc import write_map
from vitreous.io.refinement_files import (
    OptimiserFile,
    SamplingFile,
    iteration_root,
    write_iteration,
)
from vitreous.job import Context
from vitreous.jobs._model_file import class_model, model_file
from vitreous.methods.refinement.classify_3d_state import Classification3D, Options3D
from vitreous.methods.refinement.dataset import with_poses
from vitreous.methods.refinement.particles import ParticleSet


def write_state(
    state: Classification3D, dataset: Dataset, particles: ParticleSet, options: Options3D, context: Context
) -> None:
    """run_itNNN_class001.mrc and so on; the optimiser last, which says that the iteration is whole."""
    root = iteration_root(context.directory, state.iteration)
    classes = []
    for k, share in enumerate(state.distribution):
        path = Path(f"{root}_class{k + 1:03d}.mrc")
        write_map(path, Volume(state.densities[k], particles.pixel_size))
        curves = (state.data_vs_prior[k], state.sigma2[k], state.tau2[k])
        views = _direction_shares(state, k)
        classes.append(class_model(particles, context.relative(path), share, curves, views))
    model = model_file(
        particles,
        state.poses,
        classes,
        state.noise,
        shells=(state.shell, state.max_shell),
        sigma_offset=state.sigma_offset,
        log_likelihood=state.log_likelihood,
        tau2_fudge=options.tau2_fudge,
        padding=options.padding,
    )
    rows = with_poses(dataset, state.poses, particles.pixel_size)
    optimiser = _optimiser(state, options, particles.pixel_size)
    write_iteration(root, context.project, rows, model, optimiser, _sampling(options, particles.pixel_size))


def _direction_shares(state: Classification3D, k: int) -> NDArray[np.float64] | None:
    """Share of all particles in one class, by direction; None where no grid of directions was searched."""
    if state.directions.numel() == 0:
        return None
    return (state.directions[k] / state.directions.sum().clamp(min=1e-30)).numpy()


def _optimiser(state: Classification3D, options: Options3D, pixel_size: float) -> OptimiserFile:
    changes = state.changes
    more = {
        "rlnDoSkipAlign": int(not options.align),
        "rlnIncrementImageSize": options.incr_size,
        "rlnHighresLimitExpectation": options.strict_highres or -1.0,
        "rlnChangesOptimalClasses": changes.classes,
        "rlnChangesOptimalOrientations": changes.rotations,
        "rlnChangesOptimalOffsets": changes.offsets * pixel_size,
        "rlnDoCorrectNorm": int(options.norm_correction),
    }
    return OptimiserFile(
        state.iteration,
        options.iterations,
        options.diameter,
        options.oversampling,
        options.adaptive_fraction,
        options.seed,
        more=more,
    )


def _sampling(options: Options3D, pixel_size: float) -> SamplingFile:
    return SamplingFile(
        angular_step(options.healpix_order),
        options.offset_range,
        options.offset_step,
        pixel_size,
        options.perturb,
        options.healpix_order,
        options.symmetry,
    )
