"""Picks as cryoSPARC keeps them: location/* columns of a .cs file, both ways.

Places are fractions of the micrograph's width and height; y runs as the rows of the MRC file do, so that a micrograph
which both programs read has its picks at the same pixels. RELION turns TIFF and EER movies upside down when it reads
them and cryoSPARC does not: between micrographs that each made from such a movie, ask for flip_y.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.cryosparc import read_cs
from vitreous.runtime.atomic import atomic_path

_PLACE = ("location/micrograph_path", "location/micrograph_shape", "location/center_x_frac", "location/center_y_frac")
# cryoSPARC names what it makes of a movie by the movie's uid, 21 digits.
_UID = re.compile(r"^(\d{21})_")


@dataclass(frozen=True)
class PickedMicrograph:
    """One micrograph with its picks. shape: (y, x) in pixels; pixel_size: A."""

    name: str
    shape: tuple[int, int]
    pixel_size: float
    picks: Table


def read_cryosparc_picks(path: str | Path, *, flip_y: bool = False) -> dict[str, Table]:
    """coordinate_x, coordinate_y (pixels) and pick_score by the path of the micrograph.

    Raises InputError where the file says no places.
    """
    array = read_cs(path)
    names = array.dtype.names or ()
    missing = [name for name in _PLACE if name not in names]
    if missing:
        remedy = "Give a .cs file of picks, or the passthrough file of the particles."
        raise InputError(path, f"does not say where particles lie (no {missing[0]})", remedy)
    raw, shape, x, y = (array[name] for name in _PLACE)
    y = 1.0 - y.astype(np.float64) if flip_y else y.astype(np.float64)
    columns = {"coordinate_x": x.astype(np.float64) * shape[:, 1], "coordinate_y": y * shape[:, 0]}
    if "pick_stats/ncc_score" in names:
        columns["pick_score"] = array["pick_stats/ncc_score"].astype(np.float64)
    table = Table(columns)
    paths = np.array([_text(value) for value in raw.tolist()], dtype=object)
    return {str(name): table.take(paths == name) for name in dict.fromkeys(paths.tolist())}


def write_cryosparc_picks(path: str | Path, micrographs: list[PickedMicrograph], *, flip_y: bool = False) -> None:
    """Write picks as a .cs file, one row a pick, with uids that depend on micrograph and place alone."""
    parts = [_rows(one, flip_y) for one in micrographs]
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.concatenate(parts) if parts else np.zeros(0, _row_type(1)), allow_pickle=False)


def _row_type(longest: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("uid", "<u8"),
            ("location/micrograph_uid", "<u8"),
            ("location/exp_group_id", "<u4"),
            ("location/micrograph_path", f"S{longest}"),
            ("location/micrograph_shape", "<u4", (2,)),
            ("location/micrograph_psize_A", "<f4"),
            ("location/center_x_frac", "<f4"),
            ("location/center_y_frac", "<f4"),
            ("pick_stats/ncc_score", "<f4"),
            ("pick_stats/power", "<f4"),
            ("pick_stats/template_idx", "<u4"),
            ("pick_stats/angle_rad", "<f4"),
        ]
    )


def _rows(one: PickedMicrograph, flip_y: bool) -> NDArray[Any]:
    name = one.name.encode()
    n = one.picks.n_rows
    rows = np.zeros(n, _row_type(max(len(name), 1)))
    if not n:
        return rows
    x, y = (one.picks[column].astype(np.float64) for column in ("coordinate_x", "coordinate_y"))
    rows["location/micrograph_uid"] = _micrograph_uid(one.name)
    rows["location/exp_group_id"] = 1
    rows["location/micrograph_path"] = name
    rows["location/micrograph_shape"] = one.shape
    rows["location/micrograph_psize_A"] = one.pixel_size
    rows["location/center_x_frac"] = x / one.shape[1]
    fraction = y / one.shape[0]
    rows["location/center_y_frac"] = 1.0 - fraction if flip_y else fraction
    for column, field, scale in (
        ("pick_score", "pick_stats/ncc_score", 1.0),
        ("psi", "pick_stats/angle_rad", np.pi / 180.0),
    ):
        if column in one.picks:
            rows[field] = one.picks[column].astype(np.float64) * scale
    if "class_number" in one.picks:
        rows["pick_stats/template_idx"] = np.maximum(one.picks["class_number"].astype(np.int64) - 1, 0)
    rows["uid"] = [_digest(f"{one.name} {a:.4f} {b:.4f} {i}") for i, (a, b) in enumerate(zip(x, y, strict=True))]
    return rows


def _micrograph_uid(name: str) -> int:
    """The uid that cryoSPARC put into the file's name; else one made of the name."""
    found = _UID.match(Path(name).name)
    uid = int(found.group(1)) if found else 0
    return uid if 0 < uid < 2**64 else _digest(name)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _text(value: object) -> str:
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    return text.lstrip(">")  # a leading ">" marks files that were imported by a link
