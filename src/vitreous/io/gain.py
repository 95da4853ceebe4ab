"""Gain references: what each pixel's counts are to be multiplied by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.io.mrc import read_image
from vitreous.io.tiff import read_tiff


def read_gain(
    path: str | Path, rotation: int = 0, flip: int = 0, *, eer_shape: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """A multiplicative gain reference (y, x) in the orientation of the movie as read. 0 marks dead pixels.

    rotation: times 90 degrees clockwise with row 0 on top (RELION's gain_rot); flip, after it: 0 none, 1 upside
    down, 2 left to right. Formats: .mrc, .tif(f), .gain. TIFF gains are turned upside down as TIFF movies are.
    eer_shape: for EER movies, their rendered (y, x): references other than .gain are then divisors, as RELION
    takes them, and sizes that differ by a factor of two are made to fit.
    Raises InputError for missing files, negative values or a size that does not fit.
    """
    file = Path(path)
    if rotation not in (0, 1, 2, 3):
        raise InputError("gain rotation", f"is {rotation}", "Choose 0, 1, 2 or 3 (times 90 degrees).")
    if flip not in (0, 1, 2):
        raise InputError("gain flip", f"is {flip}", "Choose 0 (none), 1 (upside down) or 2 (left to right).")
    gain = _read(file).astype(np.float32)
    if gain.ndim != 2:
        raise InputError(file, f"holds {gain.shape[0]} images, a gain reference is one", "Give the right file.")
    if not np.isfinite(gain).all() or gain.min() < 0 or gain.max() <= 0:
        raise InputError(file, "is no gain reference: it holds NaN, negative values or only zeros", "Give another.")
    if eer_shape is not None:
        gain = _fit(file, gain, eer_shape)
        if file.suffix.lower() != ".gain":
            gain = np.divide(1.0, gain, out=np.zeros_like(gain), where=gain > 0)
    gain = np.rot90(gain, -rotation)
    gain = gain[::-1] if flip == 1 else gain[:, ::-1] if flip == 2 else gain
    return np.ascontiguousarray(gain)


def _read(file: Path) -> NDArray[Any]:
    ending = file.suffix.lower()
    if ending in (".tif", ".tiff"):
        return read_tiff(file)[0]
    if ending == ".gain":
        # Thermo Fisher's own TIFF for EER movies, which are not turned upside down: neither is it.
        return read_tiff(file)[0][::-1]
    if ending in (".mrc", ".mrcs", ".gz", ".bz2", ".xz"):
        return read_image(file)[0]
    raise InputError(file, "is no gain reference by its name", "Give a .mrc, .tif, .tiff or .gain file.")


def _fit(file: Path, gain: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Repeat or average pixels two by two where sensor (4K) and rendered grid (8K) differ."""
    ny, nx = gain.shape
    if (ny, nx) == shape:
        return gain
    if (2 * ny, 2 * nx) == shape:
        return gain.repeat(2, 0).repeat(2, 1)
    if (ny, nx) == (2 * shape[0], 2 * shape[1]):
        blocks = gain.reshape(shape[0], 2, shape[1], 2)
        return blocks.mean((1, 3)) * (blocks > 0).all((1, 3))
    what = f"has {nx} x {ny} pixels, the movies {shape[1]} x {shape[0]}"
    raise InputError(file, what, "Give the gain reference of this camera mode.")


def check_gain_shape(path: str | Path, gain: NDArray[np.float32], movie: str | Path, shape: tuple[int, int]) -> None:
    """Raise InputError where the gain (after rotation) and a movie's frames differ in size."""
    if gain.shape != shape:
        what = f"has {gain.shape[1]} x {gain.shape[0]} pixels, {movie} has {shape[1]} x {shape[0]}"
        raise InputError(path, what, "Try another gain rotation, or give the gain reference of this camera mode.")
