"""Between a particle table and what refinement works on."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.ctf import CtfTreatment, Defocus, Microscope
from vitreous.core.errors import InputError
from vitreous.core.rotations import euler_to_matrix, matrix_to_euler
from vitreous.data.dataset import Dataset
from vitreous.data.images import ImageSource
from vitreous.methods.refinement.common_grid import CommonGrid, Distortion
from vitreous.methods.refinement.particles import ParticleSet, Poses

_CTF_COLUMNS = ("defocus_u", "defocus_v", "defocus_angle")
_MAGNIFICATION = ("magnification_xx", "magnification_xy", "magnification_yx", "magnification_yy")
_BEAM_TILT = ("beam_tilt_x", "beam_tilt_y")


def particle_set(
    dataset: Dataset, images: ImageSource, *, apply_ctf: bool = True, treatment: CtfTreatment | None = None
) -> ParticleSet:
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
    return ParticleSet(
        images,
        optics_group,
        microscopes_of(dataset, apply_ctf=apply_ctf),
        Defocus(*columns),
        apply_ctf,
        limits_of(images, optics_group, dataset.optics.n_rows),
        scale_groups_of(dataset)[0],
        treatment=treatment or CtfTreatment(),
        b_factor=_envelope(dataset, "ctf_b_factor", 0.0),
        ctf_scale=_envelope(dataset, "ctf_scale", 1.0),
        premultiplied=_premultiplied(dataset),
    )


def _envelope(dataset: Dataset, name: str, nothing: float) -> torch.Tensor | None:
    """A column of the particles' own envelopes; None where it says nothing."""
    if name not in dataset.rows or bool((dataset.rows[name] == nothing).all()):
        return None
    return _column(dataset, name, len(dataset))


def _premultiplied(dataset: Dataset) -> tuple[bool, ...]:
    """Groups whose images were multiplied by their CTF; empty where none was."""
    name = "ctf_premultiplied"
    flags = tuple(bool(value) for value in dataset.optics[name]) if name in dataset.optics else ()
    return flags if any(flags) else ()


def scale_groups_of(dataset: Dataset) -> tuple[NDArray[np.int64], list[str]]:
    """Each particle's group for the intensity scale, from 0, and the groups' names: rlnGroupName, else micrographs."""
    for name in ("group_name", "micrograph_name"):
        if name in dataset.rows:
            names, groups = np.unique(dataset.rows[name].astype(str), return_inverse=True)
            return groups.astype(np.int64), names.tolist()
    return np.zeros(len(dataset), dtype=np.int64), ["group_01"]


def limits_of(images: ImageSource, optics_group: NDArray[np.int64], n_groups: int) -> tuple[float, ...]:
    """Highest frequency that each group's images hold, where any group holds less than the grid."""
    if not isinstance(images, CommonGrid):
        return ()
    of_group = [math.inf] * n_groups
    for group, first in zip(*np.unique(optics_group, return_index=True), strict=True):
        of_group[group] = images.limit_of(int(first))
    return tuple(of_group) if min(of_group) < math.inf else ()


def _column(dataset: Dataset, name: str, n: int) -> torch.Tensor:
    values = dataset.rows[name] if name in dataset.rows else np.zeros(n)
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def microscopes_of(dataset: Dataset, *, apply_ctf: bool = False) -> tuple[Microscope, ...]:
    """The lens of each optics group. Raises InputError where the CTF is wanted and the table does not say."""
    names = ("voltage", "cs", "amplitude_contrast")
    missing = [name for name in names if name not in dataset.optics]
    if missing and apply_ctf:
        raise InputError("particles", f"the optics table has no {', '.join(missing)}", "Give it when importing.")
    rows = range(dataset.optics.n_rows)
    if missing:
        return tuple(Microscope(300.0, 2.7, 0.1) for _ in rows)
    values = [[float(dataset.optics[name][row]) for name in names] for row in rows]
    return tuple(
        Microscope(kv, cs, q0, _numbers(dataset, "even_zernike", row)) for row, (kv, cs, q0) in enumerate(values)
    )


def distortions_of(dataset: Dataset, *, aberrations: bool = True) -> tuple[Distortion, ...]:
    """What each group's optics did to its images; aberrations False: the magnification alone."""
    optics = dataset.optics
    found = []
    for row in range(optics.n_rows):
        one = {name: float(optics[name][row]) for name in (*_MAGNIFICATION, *_BEAM_TILT) if name in optics}
        xx, xy, yx, yy = (one.get(name, float(name[-1] == name[-2])) for name in _MAGNIFICATION)
        tilt = (one.get("beam_tilt_x", 0.0), one.get("beam_tilt_y", 0.0))
        odd = _numbers(dataset, "odd_zernike", row)
        whole = Distortion(((xx, xy), (yx, yy)), tilt, odd)
        found.append(whole if aberrations else Distortion(whole.magnification))
    return tuple(found)


def _numbers(dataset: Dataset, name: str, row: int) -> tuple[float, ...]:
    """A list written as [a,b,c] in the optics table."""
    text = str(dataset.optics[name][row]).strip() if name in dataset.optics else ""
    try:
        return tuple(float(part) for part in text.strip("[]").split(",") if part.strip())
    except ValueError as error:
        raise InputError("particles", f"the optics table's {name} is '{text}'", "Write [a,b,c].") from error


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
