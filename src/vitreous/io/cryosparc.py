"""cryoSPARC's particle tables (.cs): the only place that knows their names.

A .cs file is a numpy structured array. Conventions, all turned into ours here:
- pose (3D): a rotation vector r (radians); our matrix, RELION's A, is the transpose of exp([r]x). In 2D: psi.
- shift: pixels of alignments/psize_A, the same sign as RELION's origin.
- df_angle_rad: from x to the U axis, as RELION's (checked against a STAR file of the same particles).
- location/center_*_frac: fractions of the micrograph. cryoSPARC does not turn TIFF and EER movies upside down as
  RELION does: for coordinates on a RELION micrograph made from a TIFF, ask for flip_y.
- blob/sign -1: images as recorded, protein dark. RELION (and we) want them inverted.
"""

from __future__ import annotations

import logging
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.core.rotations import axis_angle_to_matrix, matrix_to_euler
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table

log = logging.getLogger(__name__)

_MILLIMETRE = 1e7  # A
_MILLIRADIAN = 1e3
_OPTICS = {
    "ctf/accel_kv": "voltage",
    "ctf/cs_mm": "cs",
    "ctf/amp_contrast": "amplitude_contrast",
    "blob/psize_A": "pixel_size",
}
_DIGITS = 6  # float32 holds no more
_PLAIN = {
    "ctf/df1_A": "defocus_u",
    "ctf/df2_A": "defocus_v",
    "ctf/bfactor": "ctf_b_factor",
    "ctf/scale": "ctf_scale",
    "ctf_stats/cross_corr": "ctf_figure_of_merit",
    "ctf_stats/ctf_fit_to_A": "ctf_resolution",
    "pick_stats/ncc_score": "pick_score",
}
_RADIANS = {"ctf/df_angle_rad": "defocus_angle", "ctf/phase_shift_rad": "phase_shift"}


def read_cs(path: str | Path) -> NDArray[Any]:
    """The structured array of a .cs file. Raises InputError for what is none."""
    file = Path(path)
    try:
        array = np.load(file, allow_pickle=False)
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise InputError(file, what, "Check the name and the permissions.") from error
    except (ValueError, EOFError, SyntaxError, TypeError, MemoryError, tokenize.TokenError) as error:
        raise InputError(file, "is no .cs file", "Give a file written by cryoSPARC.") from error
    if not isinstance(array, np.ndarray) or array.dtype.names is None or "uid" not in array.dtype.names:
        raise InputError(file, "is no .cs file: it has no uid column", "Give a file written by cryoSPARC.")
    return array


def read_cryosparc(path: str | Path, passthrough: str | Path | None = None, flip_y: bool = False) -> Dataset:
    """Particles of a .cs file as a dataset.

    passthrough: the job's other .cs file, joined by uid (rows that only one of them has are left out).
    flip_y: turn coordinates on the micrograph upside down (see the module).
    Raises InputError where the file holds no particles with images or CTF.
    """
    file = Path(path)
    columns = _columns(read_cs(file))
    if passthrough is not None:
        columns = _join(columns, _columns(read_cs(passthrough)), Path(passthrough))
    if not any(name.startswith(("blob/", "ctf/")) for name in columns):
        raise InputError(file, "holds no particles (neither images nor CTF)", "Give the particles .cs file.")
    rows: dict[str, NDArray[Any]] = {}
    if "blob/path" in columns and "blob/idx" in columns:
        rows["image_name"] = _image_names(columns)
    if "location/micrograph_path" in columns:
        rows["micrograph_name"] = _paths(columns["location/micrograph_path"])
    rows |= _coordinates(columns, flip_y)
    rows |= {ours: columns[name].astype(np.float64) for name, ours in _PLAIN.items() if name in columns}
    rows |= {ours: np.rad2deg(columns[name].astype(np.float64)) for name, ours in _RADIANS.items() if name in columns}
    rows |= _alignments(columns)
    rows["ucsfUid"] = columns["uid"].astype(str).astype(object)  # uint64, more than our integers hold
    optics, groups = _optics(columns)
    if "blob/sign" in columns and (columns["blob/sign"] < 0).any():
        log.warning("%s: protein is dark in these images (blob/sign -1); invert them before refinement", file)
    return Dataset("particles", optics, Table({**rows, "optics_group": groups}))


def _columns(array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {name: array[name] for name in array.dtype.names or ()}


def _join(columns: dict[str, NDArray[Any]], more: dict[str, NDArray[Any]], path: Path) -> dict[str, NDArray[Any]]:
    _, ours, theirs = np.intersect1d(columns["uid"], more["uid"], assume_unique=True, return_indices=True)
    if not len(ours):
        raise InputError(path, "shares no particle with the other file", "Give both files of one job.")
    order = np.argsort(ours)
    ours, theirs = ours[order], theirs[order]
    joined = {name: values[ours] for name, values in columns.items()}
    return joined | {name: values[theirs] for name, values in more.items() if name not in joined}


def _paths(values: NDArray[Any]) -> NDArray[Any]:
    texts = [v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else str(v) for v in values.tolist()]
    # A leading ">" marks files that were imported by a link.
    return np.array([text.lstrip(">") for text in texts], dtype=object)


def _image_names(columns: dict[str, NDArray[Any]]) -> NDArray[Any]:
    files = _paths(columns["blob/path"])
    return np.array(
        [f"{i + 1:06d}@{file}" for i, file in zip(columns["blob/idx"].tolist(), files, strict=True)], dtype=object
    )


def _coordinates(columns: dict[str, NDArray[Any]], flip_y: bool) -> dict[str, NDArray[Any]]:
    needed = ("location/center_x_frac", "location/center_y_frac", "location/micrograph_shape")
    if not all(name in columns for name in needed):
        return {}
    x, y, shape = (columns[name].astype(np.float64) for name in needed)
    y = 1.0 - y if flip_y else y
    return {"coordinate_x": x * shape[:, 1], "coordinate_y": y * shape[:, 0]}


def _alignments(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Poses, origins, half-sets and classes; 3D ones where there are both."""
    for kind in ("alignments3D", "alignments2D"):
        if f"{kind}/pose" not in columns:
            continue
        pose = columns[f"{kind}/pose"].astype(np.float64)
        found = _euler_angles(pose) if kind == "alignments3D" else {"psi": np.rad2deg(pose)}
        if f"{kind}/shift" in columns:
            size = columns.get(f"{kind}/psize_A", columns.get("blob/psize_A"))
            if size is None:
                raise InputError(f"{kind}/shift", "has no pixel size", "Join the passthrough file.")
            shift = columns[f"{kind}/shift"].astype(np.float64) * size.astype(np.float64)[:, None]
            found |= {"origin_x": shift[:, 0], "origin_y": shift[:, 1]}
        if f"{kind}/class" in columns:
            found["class_number"] = columns[f"{kind}/class"].astype(np.int64) + 1
        if kind == "alignments3D" and "alignments3D/split" in columns:
            found["half_set"] = columns["alignments3D/split"].astype(np.int64) + 1
        return found
    return {}


def _euler_angles(vectors: Float[np.ndarray, "n 3"]) -> dict[str, NDArray[Any]]:
    angle = np.linalg.norm(vectors, axis=1)
    axis = np.where(angle[:, None] > 0, vectors, [0.0, 0.0, 1.0])
    matrices = axis_angle_to_matrix(torch.from_numpy(axis), torch.from_numpy(np.rad2deg(angle))).transpose(-1, -2)
    rot, tilt, psi = matrix_to_euler(matrices)
    return {"rot": rot.numpy(), "tilt": tilt.numpy(), "psi": psi.numpy()}


def _optics(columns: dict[str, NDArray[Any]]) -> tuple[Table, NDArray[np.int64]]:
    """One group for each distinct exposure group and optics; group of each row."""
    n = len(columns["uid"])
    names = [name for name in (*_OPTICS, "ctf/exp_group_id") if name in columns]
    values = [columns[name].astype(np.float64) for name in names]
    beam_tilt = _beam_tilt(columns)
    shape = columns["blob/shape"][:, 0].astype(np.float64) if "blob/shape" in columns else np.zeros(n)
    keys = np.stack([*values, shape, *beam_tilt], axis=1)
    _, first, groups = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    numbers = np.arange(len(first)) + 1
    optics: dict[str, Any] = {
        "optics_group_name": np.array([f"opticsGroup{i}" for i in numbers], dtype=object),
        "optics_group": numbers,
    }
    for name, column in zip(names, values, strict=True):
        if name in _OPTICS:
            # 2.7 as float32 is 2.7000000477: the digits that were meant are enough.
            optics[_OPTICS[name]] = np.array([float(f"{v:.{_DIGITS}g}") for v in column[first]])
    if "blob/shape" in columns:
        optics |= {"box": shape[first].astype(np.int64), "image_dimensionality": np.full(len(first), 2)}
    if np.any(beam_tilt):
        optics |= {"beam_tilt_x": beam_tilt[0][first], "beam_tilt_y": beam_tilt[1][first]}
    return Table(optics), (groups.reshape(-1) + 1).astype(np.int64)


def _beam_tilt(columns: dict[str, NDArray[Any]]) -> list[NDArray[np.float64]]:
    """Beam tilt x, y in mrad; cryoSPARC holds Cs times its sine, in A."""
    if "ctf/tilt_A" not in columns or "ctf/cs_mm" not in columns or not columns["ctf/cs_mm"].all():
        return [np.zeros(len(columns["uid"]))] * 2
    cs = columns["ctf/cs_mm"].astype(np.float64)[:, None] * _MILLIMETRE
    tilt = np.arcsin(columns["ctf/tilt_A"].astype(np.float64) / cs) * _MILLIRADIAN
    return [tilt[:, 0], tilt[:, 1]]
