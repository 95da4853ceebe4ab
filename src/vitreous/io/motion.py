"""Per-movie STAR files of motion, as RELION writes them beside each micrograph (and MotionCor2's wrapper does)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.motion import N_COEFFICIENTS, Motion
from vitreous.data.table import Table
from vitreous.io.relion import read_tables, write_tables

_POLYNOMIAL = 1  # rlnMotionModelVersion: 0 none, 1 third order in time
# A spline in time stands in a block of ours, beside the polynomial nearest to it, where RELION's polishing starts.
_SPLINE = "vitreous_local_motion"


@dataclass(frozen=True)
class MotionRecord:
    """The motion of a movie and what belongs to it.

    pixel_size A of the movie; dose, pre_exposure e/A^2; voltage kV; start_frame from 1; binning of the micrograph.
    fit: what the alignment said of itself, by name; patches: what each patch said (both only in files of ours).
    """

    motion: Motion
    movie_name: str
    pixel_size: float
    dose_per_frame: float = 0.0
    pre_exposure: float = 0.0
    voltage: float = 300.0
    binning: float = 1.0
    start_frame: int = 1
    gain_name: str = ""
    fit: Mapping[str, Any] = field(default_factory=dict)
    patches: Table | None = None


def write_motion(path: str | Path, record: MotionRecord) -> None:
    """Write a per-movie STAR file, atomically."""
    motion = record.motion
    numbers = record.start_frame + np.arange(motion.n_frames)
    general: dict[str, Any] = {
        "image_size_x": motion.shape[1],
        "image_size_y": motion.shape[0],
        "image_size_z": int(numbers[-1]),
        "movie_name": record.movie_name,
    }
    if record.gain_name:
        general["gain_name"] = record.gain_name
    general |= {
        "binning": record.binning,
        "movie_pixel_size": record.pixel_size,
        "dose_per_frame": record.dose_per_frame,
        "pre_exposure": record.pre_exposure,
        "voltage": record.voltage,
        "start_frame": record.start_frame,
        "motion_model_version": 0 if motion.coefficients is None else _POLYNOMIAL,
    }
    shifts = motion.global_shifts
    tables: dict[str, Table | Mapping[str, Any]] = {
        "general": general,
        "global_shift": Table({"frame_number": numbers, "shift_x": shifts[:, 0], "shift_y": shifts[:, 1]}),
    }
    if motion.coefficients is not None:
        values = motion.coefficients.ravel()
        tables["local_motion_model"] = Table(
            {"motion_coefficient_index": np.arange(len(values)), "motion_coefficient": values}
        )
    if motion.local_by_frame is not None:
        tables[_SPLINE] = _spline_table(motion.local_by_frame, numbers)
    if len(motion.hot_pixels):
        tables["hot_pixels"] = Table(
            {
                "coordinate_x": motion.hot_pixels[:, 0].astype(np.float64),
                "coordinate_y": motion.hot_pixels[:, 1].astype(np.float64),
            }
        )
    if motion.patch_shifts.size:
        tables["local_shift"] = _patch_table(motion, numbers)
    if record.fit:
        tables["vitreous_fit"] = dict(record.fit)
    if record.patches is not None:
        tables["vitreous_patches"] = record.patches
    write_tables(path, tables)


def _spline_table(by_frame: NDArray[np.float64], numbers: NDArray[np.int64]) -> Table:
    """Each frame's polynomial over the field: coefficient index = 6 * axis + space term."""
    n_terms = by_frame[0].size
    return Table(
        {
            "frame_number": np.repeat(numbers, n_terms),
            "motion_coefficient_index": np.tile(np.arange(n_terms), len(numbers)),
            "motion_coefficient": by_frame.ravel(),
        }
    )


def _patch_table(motion: Motion, numbers: NDArray[np.int64]) -> Table:
    n_patches, n_frames = motion.patch_shifts.shape[:2]
    return Table(
        {
            "frame_number": np.tile(numbers, n_patches),
            "coordinate_x": np.repeat(motion.patch_centres[:, 0], n_frames),
            "coordinate_y": np.repeat(motion.patch_centres[:, 1], n_frames),
            "shift_x": motion.patch_shifts[..., 0].ravel(),
            "shift_y": motion.patch_shifts[..., 1].ravel(),
        }
    )


def read_motion(path: str | Path) -> MotionRecord:
    """Read a per-movie STAR file. Raises InputError where it has no shifts, or a motion model of another kind."""
    tables = read_tables(path)
    if "general" not in tables or "global_shift" not in tables:
        raise InputError(path, "holds no motion of a movie", "Give the STAR file beside a motion-corrected micrograph.")
    general = tables["general"].row(0)
    track = tables["global_shift"]
    shifts = np.stack([track["shift_x"], track["shift_y"]], axis=1).astype(np.float64)
    shape = (int(general["image_size_y"]), int(general["image_size_x"]))
    centres, patch_shifts = _patches(tables.get("local_shift"), len(shifts))
    hot = tables.get("hot_pixels")
    motion = Motion(
        shape,
        shifts,
        _coefficients(path, tables.get("local_motion_model")),
        centres,
        patch_shifts,
        np.zeros((0, 2), dtype=np.int64)
        if hot is None
        else np.stack([hot["coordinate_x"], hot["coordinate_y"]], axis=1).astype(np.int64),
        _by_frame(path, tables.get(_SPLINE), len(shifts)),
    )
    return MotionRecord(
        motion,
        movie_name=str(general.get("movie_name", "")),
        pixel_size=float(general.get("movie_pixel_size", 0.0)),
        dose_per_frame=float(general.get("dose_per_frame", 0.0)),
        pre_exposure=float(general.get("pre_exposure", 0.0)),
        voltage=float(general.get("voltage", 300.0)),
        binning=float(general.get("binning", 1.0)),
        start_frame=int(general.get("start_frame", 1)),
        gain_name=str(general.get("gain_name", "")),
        fit=tables["vitreous_fit"].row(0) if "vitreous_fit" in tables else {},
        patches=tables.get("vitreous_patches"),
    )


def _coefficients(path: str | Path, table: Table | None) -> NDArray[np.float64] | None:
    if table is None or table.n_rows == 0:
        return None
    if table.n_rows != 2 * N_COEFFICIENTS:
        what = f"has a motion model of {table.n_rows} coefficients, not {2 * N_COEFFICIENTS}"
        raise InputError(path, what, "Only RELION's polynomial model (version 1) is known.")
    values = np.zeros(2 * N_COEFFICIENTS)
    values[table["motion_coefficient_index"].astype(np.int64)] = table["motion_coefficient"]
    return values.reshape(2, N_COEFFICIENTS)


def _by_frame(path: str | Path, table: Table | None, n_frames: int) -> NDArray[np.float64] | None:
    if table is None:
        return None
    if table.n_rows != 2 * N_COEFFICIENTS // 3 * n_frames:
        what = f"has a local motion of {table.n_rows} numbers for {n_frames} frames"
        raise InputError(path, what, "Correct the movie anew.")
    return table["motion_coefficient"].astype(np.float64).reshape(n_frames, 2, N_COEFFICIENTS // 3)


def _patches(table: Table | None, n_frames: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (p, 2) and shifts (p, f, 2) of patches; none where a table does not hold every frame of each."""
    if table is None or table.n_rows == 0 or table.n_rows % n_frames:
        return np.zeros((0, 2)), np.zeros((0, 0, 2))
    columns = ("coordinate_x", "coordinate_y", "shift_x", "shift_y")
    rows = np.stack([table[name] for name in columns], axis=1).astype(np.float64).reshape(-1, n_frames, 4)
    if np.ptp(rows[..., :2], axis=1).any():
        return np.zeros((0, 2)), np.zeros((0, 0, 2))
    return rows[:, 0, :2], rows[..., 2:]
