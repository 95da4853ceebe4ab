"""Between a particle table and what refinement works on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.errors import InputError
from vitreous.core.rotations import euler_to_matrix, matrix_to_euler
from vitreous.data.dataset import Dataset
from vitreous.data.images import ImageSource
from vitreous.methods.refinement.particles import ParticleSet, Poses

_CTF_COLUMNS = ("defocus_u", "defocus_v", "defocus_angle")


def particle_set(dataset: Dataset, images: ImageSource, *, apply_ctf: bool = True) -> ParticleSet:
    """Images and optics of a particle dataset. Raises InputError where the CTF is wanted and not there."""
    n = len(dataset)
    groups = {int(group): index for index, group in enumerate(dataset.optics["optics_group"])}
    optics_group = np.array([groups[int(group)] for group in dataset.rows["optics_group"]], dtype=np.int64)
    if apply_ctf:
        missing = [name for name in _CTF_COLUMNS if name not in dataset.rows]
        if missing:
            raise InputError("particles", f"have no {', '.join(missing)}", "Run ctf first, or switch the CTF off.")
        columns = [_column(dataset, name, n) for name in (*_CTF_COLUMNS, "phase_shift")]
    else:
        columns = [torch.zeros(n, dtype=torch.float64) for _ in range(4)]
    return ParticleSet(images, optics_group, _microscopes(dataset, apply_ctf), Defocus(*columns), apply_ctf)


def _column(dataset: Dataset, name: str, n: int) -> torch.Tensor:
    values = dataset.rows[name] if name in dataset.rows else np.zeros(n)
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def _microscopes(dataset: Dataset, apply_ctf: bool) -> tuple[Microscope, ...]:
    names = ("voltage", "cs", "amplitude_contrast")
    missing = [name for name in names if name not in dataset.optics]
    if missing and apply_ctf:
        raise InputError("particles", f"the optics table has no {', '.join(missing)}", "Give it when importing.")
    rows = range(dataset.optics.n_rows)
    if missing:
        return tuple(Microscope(300.0, 2.7, 0.1) for _ in rows)
    return tuple(Microscope(*(float(dataset.optics[name][row]) for name in names)) for row in rows)


def has_poses(dataset: Dataset) -> bool:
    """Whether every particle comes with Euler angles."""
    return all(name in dataset.rows for name in ("rot", "tilt", "psi"))


def poses_of(dataset: Dataset, pixel_size: float) -> Poses:
    """The poses in a particle table; identity and no shift where it has none. pixel_size in A, of the images."""
    n = len(dataset)
    poses = Poses.unknown(n)
    if has_poses(dataset):
        eulers = [_column(dataset, name, n) for name in ("rot", "tilt", "psi")]
        poses.rotations[:] = euler_to_matrix(*eulers).numpy()
    for axis, name in enumerate(("origin_y", "origin_x")):
        if name in dataset.rows:
            poses.origins[:, axis] = dataset.rows[name] / pixel_size
    if "class_number" in dataset.rows:
        poses.classes[:] = np.maximum(dataset.rows["class_number"].astype(np.int64) - 1, 0)
    if "norm_correction" in dataset.rows:
        poses.norm[:] = np.where(dataset.rows["norm_correction"] > 0, dataset.rows["norm_correction"], 1.0)
    return poses


def with_poses(dataset: Dataset, poses: Poses, pixel_size: float) -> Dataset:
    """The table with refined poses and what is known of each particle's fit."""
    rot, tilt, psi = (angle.numpy() for angle in matrix_to_euler(torch.from_numpy(poses.rotations)))
    columns: dict[str, NDArray[np.generic]] = {
        "rot": rot,
        "tilt": tilt,
        "psi": psi,
        "origin_x": poses.origins[:, 1] * pixel_size,
        "origin_y": poses.origins[:, 0] * pixel_size,
        "class_number": poses.classes + 1,
        "norm_correction": poses.norm,
        "log_likelihood": poses.log_likelihood,
        "max_probability": poses.max_probability,
        "n_significant": poses.n_significant,
    }
    return dataset.with_columns(**columns)
