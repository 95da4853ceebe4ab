"""Defect maps: which detector pixels are not to be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.io.mrc import read_image
from vitreous.io.tiff import read_tiff

_MAPS = (".mrc", ".mrcs", ".gz", ".bz2", ".xz", ".tif", ".tiff")


def read_defects(path: str | Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Bad pixels (y, x), True = bad, in the orientation of the movie as read.

    A map (.mrc or .tif, non-zero = bad; TIFF turned upside down as movies are) or a text file with a rectangle a
    line, "x y width height", counted from 0 (MotionCor2's). shape: of the movie's frames.
    Raises InputError where the map has another size, a rectangle lies outside, or nothing good is left.
    """
    file = Path(path)
    if file.suffix.lower() in _MAPS:
        image = read_tiff(file)[0] if file.suffix.lower().startswith(".tif") else read_image(file)[0]
        if image.shape != shape:
            what = f"is of shape {image.shape} (y, x), the movies {shape}"
            raise InputError(file, what, "Give the defect map of this camera mode.")
        bad = image != 0
    else:
        bad = _read_rectangles(file, shape)
    if bad.all():
        raise InputError(file, "marks every pixel as bad", "Check the defect map (1 means bad).")
    return np.ascontiguousarray(bad)


def _read_rectangles(file: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise InputError(file, what, "Check the name and the permissions.") from error
    except UnicodeDecodeError as error:
        raise InputError(file, "is no defect list: it is not text", "Give lines of x y width height.") from error
    bad = np.zeros(shape, dtype=np.bool_)
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            x, y, width, height = map(int, words)
        except ValueError as error:
            what = f"line {number} is no defect: {line.strip()[:40]!r}"
            raise InputError(file, what, "Give lines of x y width height.") from error
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > shape[1] or y + height > shape[0]:
            what = f"line {number} lies outside the frames of {shape[1]} x {shape[0]} pixels"
            raise InputError(file, what, "Give the defect list of this camera mode.")
        bad[y : y + height, x : x + width] = True
    return bad
