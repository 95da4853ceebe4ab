"""Between the tables of a dataset and what refinement works with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.rotations import euler_to_matrix, matrix_to_euler
from vitreous.data.dataset import Dataset
from vitreous.data.images import ImageSource
from vitreous.methods.refinement.particles import ParticleSet, Poses


def particle_set(dataset: Dataset, images: ImageSource, *, apply_ctf: bool = True) -> ParticleSet:
    """Particles with the optics their dataset gives them."""
    rows, optics = dataset.rows, dataset.optics
    groups = {int(group): index for index, group in enumerate(optics["optics_group"])}
    index = np.array([groups[int(group)] for group in rows["optics_group"]], dtype=np.int64)
    microscopes = tuple(
        Microscope(float(v), float(cs), float(a))
        for v, cs, a in zip(optics["voltage"], optics["cs"], optics["amplitude_contrast"], strict=True)
    )

    def column(name: str) -> torch.Tensor:
        values = rows[name] if name in rows else np.zeros(len(dataset))
        return torch.from_numpy(np.asarray(values, dtype=np.float64).copy())

    defocus = Defocus(column("defocus_u"), column("defocus_v"), column("defocus_angle"), column("phase_shift"))
    return ParticleSet(images, index, microscopes, defocus, apply_ctf)


def poses_of(dataset: Dataset, pixel_size: float) -> Poses:
    """Angles, origins, classes and norm corrections a dataset already has; unknown ones are zero (norm one)."""
    rows, n = dataset.rows, len(dataset)

    def column(name: str, default: float = 0.0) -> NDArray[Any]:
        return np.asarray(rows[name], dtype=np.float64) if name in rows else np.full(n, default)

    angles = (torch.from_numpy(column(name).copy()) for name in ("rot", "tilt", "psi"))
    origins = np.stack([column("origin_y"), column("origin_x")], 1) / pixel_size
    return replace(
        Poses.unknown(n),
        rotations=euler_to_matrix(*angles).numpy(),
        origins=origins,
        classes=np.maximum(column("class_number", 1.0).astype(np.int64) - 1, 0),
        norm=column("norm_correction", 1.0),
    )


def with_poses(dataset: Dataset, poses: Poses, pixel_size: float) -> Dataset:
    """The dataset with the outcome of refinement in its columns."""
    rot, tilt, psi = (a.numpy() for a in matrix_to_euler(torch.from_numpy(poses.rotations)))
    return dataset.with_columns(
        rot=rot,
        tilt=tilt,
        psi=psi,
        origin_x=poses.origins[:, 1] * pixel_size,
        origin_y=poses.origins[:, 0] * pixel_size,
        class_number=poses.classes + 1,
        norm_correction=poses.norm,
        log_likelihood=poses.log_likelihood,
        max_probability=poses.max_probability,
        n_significant=poses.n_significant,
    )
