"""Files of a 2D classification: what it writes after an iteration, and the checkpoint that it goes on from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.data.dataset import Dataset
from vitreous.io.mrc import write_image
from vitreous.io.refinement_files import (
    ModelFile,
    OptimiserFile,
    SamplingFile,
    iteration_root,
    write_iteration,
)
from vitreous.job import Context
from vitreous.jobs._model_file import class_model, model_file
from vitreous.jobs._particles import optimiser_labels, scale_groups
from vitreous.kernels.backproject import ImageAccumulator
from vitreous.methods.refinement.classify_2d import Classification, Options2D
from vitreous.methods.refinement.dataset import with_poses
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.preprocess import NoiseModel
from vitreous.runtime.checkpoint import load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)


def write_state(
    state: Classification, dataset: Dataset, particles: ParticleSet, options: Options2D, context: Context
) -> None:
    """Write run_itNNN_{data,model,optimiser,sampling}.star and _classes.mrcs."""
    root = iteration_root(context.directory, state.iteration)
    stack = Path(f"{root}_classes.mrcs")
    write_image(stack, state.references.numpy(), particles.pixel_size)
    model = _model(state, dataset, particles, options, context.relative(stack))
    optimiser = OptimiserFile(
        state.iteration,
        options.iterations,
        options.diameter,
        options.oversampling,
        options.adaptive_fraction,
        options.seed,
        more=optimiser_labels(particles, options),
    )
    sampling = SamplingFile(
        options.psi_step, options.offset_range, options.offset_step, particles.pixel_size, options.perturb
    )
    with_columns = with_poses(dataset, state.poses, particles.pixel_size)
    write_iteration(root, context.project, with_columns, model, optimiser, sampling)


def _model(
    state: Classification, dataset: Dataset, particles: ParticleSet, options: Options2D, stack: str
) -> ModelFile:
    classes = [
        class_model(particles, f"{k + 1:06d}@{stack}", share, (state.data_vs_prior[k], state.sigma2[k], state.tau2[k]))
        for k, share in enumerate(state.distribution)
    ]
    return model_file(
        particles,
        state.poses,
        classes,
        state.noise,
        shells=(state.shell, state.max_shell),
        sigma_offset=state.sigma_offset,
        log_likelihood=state.log_likelihood,
        tau2_fudge=options.tau2_fudge,
        padding=options.padding,
        ndim=2,
        scale_groups=scale_groups(dataset, state.scale),
    )


def save_state(path: Path, state: Classification) -> None:
    """Write the checkpoint: all that the next iteration needs."""
    arrays: dict[str, Any] = {f"poses_{name}": getattr(state.poses, name) for name in Poses.__dataclass_fields__}
    for name in ("references", "distribution", "data_vs_prior", "tau2", "sigma2"):
        arrays[name] = getattr(state, name).numpy()
    arrays["noise"], arrays["scale"] = state.noise.sigma2.numpy(), state.scale
    if state.sums:
        arrays["sums_data"] = np.stack([one.data.numpy() for one in state.sums])
        arrays["sums_weight"] = np.stack([one.weight.numpy() for one in state.sums])
        arrays["sums_shape"] = np.array([state.sums[0].box, state.sums[0].padding, state.sums[0].max_radius])
    arrays["sigma_offset"] = np.float64(state.sigma_offset)
    arrays["log_likelihood"] = np.float64(state.log_likelihood)
    arrays["numbers"] = np.array([state.iteration, state.max_shell, state.shell])
    save_checkpoint(path, arrays)


def load_state(path: Path, n_particles: int, n_classes: int) -> Classification | None:
    """The state of a checkpoint; None where there is none, or one of other particles or another number of classes."""
    arrays = load_checkpoint(path)
    if arrays is None:
        return None
    if len(arrays["poses_classes"]) != n_particles or len(arrays["references"]) != n_classes:
        log.warning("%s belongs to other particles or another number of classes: starting anew", path)
        return None
    poses = Poses(**{name: arrays[f"poses_{name}"] for name in Poses.__dataclass_fields__})  # type: ignore[arg-type]
    iteration, max_shell, shell = (int(value) for value in arrays["numbers"])
    return Classification(
        iteration=iteration,
        poses=poses,
        noise=NoiseModel(torch.from_numpy(arrays["noise"])),
        sigma_offset=float(arrays["sigma_offset"]),
        max_shell=max_shell,
        shell=shell,
        log_likelihood=float(arrays["log_likelihood"]),
        scale=arrays["scale"].astype(np.float64),
        sums=_load_sums(arrays),
        **{
            name: torch.from_numpy(arrays[name])
            for name in ("references", "distribution", "data_vs_prior", "tau2", "sigma2")
        },
    )


def _load_sums(arrays: dict[str, Any]) -> tuple[ImageAccumulator, ...]:
    if "sums_data" not in arrays:
        return ()
    shape = [int(value) for value in arrays["sums_shape"]]
    pairs = zip(arrays["sums_data"], arrays["sums_weight"], strict=True)
    return tuple(ImageAccumulator(torch.from_numpy(d), torch.from_numpy(w), *shape) for d, w in pairs)
