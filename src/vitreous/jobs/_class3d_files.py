"""The files that 3D classification leaves after each iteration, under RELION's names, and the way back from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.core.so3 import angular_step
from vitreous.data.dataset import Dataset
from vitreous.data.volume import Volume
from vitreous.io.classification_state import read_classification
from vitreous.io.mrc import write_map
from vitreous.io.refinement_files import (
    OptimiserFile,
    SamplingFile,
    iteration_root,
    write_iteration,
)
from vitreous.job import Context
from vitreous.jobs._model_file import class_model, model_file
from vitreous.methods.refinement.classify_3d_state import Changes, Classification3D, Options3D
from vitreous.methods.refinement.dataset import poses_of, with_poses
from vitreous.methods.refinement.initial_reference import fit_reference
from vitreous.methods.refinement.particles import ParticleSet
from vitreous.methods.refinement.preprocess import NoiseModel


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


def read_state(
    path: Path, dataset: Dataset, particles: ParticleSet, options: Options3D, context: Context
) -> Classification3D:
    """The state after the iteration of an optimiser file, ours or RELION's. dataset: the particles it names."""
    files = read_classification(path, context.project)
    box, pixel_size = particles.box, particles.pixel_size
    densities = [fit_reference(one, box, pixel_size) for one in files.maps]
    noise = files.noise if len(files.noise) == particles.n_groups else files.noise[:1].repeat(particles.n_groups, 0)
    if noise.shape[1] != box // 2 + 1:
        what = f"is of a box of {2 * (noise.shape[1] - 1)} pixels, the particles are of {box}"
        raise InputError(path, what, "Go on with the particles it was made of.")
    n_pixels = 12 * 4**options.healpix_order
    directions = torch.zeros(options.n_classes, 0, dtype=torch.float64)
    # of symmetric groups RELION lists a part of the directions, and not the part that we search
    if options.align and files.directions is not None and files.directions.shape[1] == n_pixels:
        directions = torch.from_numpy(files.directions * len(dataset))
    poses = poses_of(dataset, pixel_size)
    poses = replace(poses, max_probability=np.asarray(dataset.rows["max_probability"], dtype=np.float64))
    classes, rotations, offsets = files.changes
    return Classification3D(
        iteration=files.iteration,
        poses=poses,
        densities=torch.stack(densities),
        noise=NoiseModel(torch.from_numpy(noise)),
        sigma_offset=files.sigma_offset / pixel_size,
        distribution=torch.from_numpy(files.distribution),
        directions=directions,
        data_vs_prior=torch.from_numpy(files.ssnr),
        tau2=torch.from_numpy(files.tau2),
        sigma2=torch.from_numpy(files.sigma2),
        max_shell=files.max_shell,
        shell=round(box * pixel_size / files.resolution),
        alike=False,
        changes=Changes(classes, rotations, offsets / pixel_size),
        log_likelihood=files.log_likelihood,
    )
