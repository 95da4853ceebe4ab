"""Coordinate files of one micrograph: STAR as RELION writes them, and EMAN's .box.

A line of a .box file holds the corner of a particle's box with the smallest x and y, and the box's sides; the pixel at
the corner is counted from 0, as in RELION.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.relion import read_table
from vitreous.runtime.atomic import write_text

_REMEDY = "Give a STAR file with coordinates, or a .box file with x, y, width and height on each line."


def read_coordinates(path: str | Path) -> Table:
    """coordinate_x, coordinate_y (pixels) and what else the file says of each pick.

    Raises InputError for a file that is missing or holds no coordinates.
    """
    file = Path(path)
    if file.suffix.lower() == ".box":
        return _read_box(file)
    table = read_table(file)
    if "coordinate_x" not in table or "coordinate_y" not in table:
        raise InputError(file, "has no coordinates", _REMEDY)
    return table


def _read_box(file: Path) -> Table:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [[float(word) for word in line.split()[:4]] for line in lines if line.strip()]
        corner_and_sides = np.array(rows, dtype=np.float64).reshape(len(rows), 4)
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise InputError(file, what, "Check the name and the permissions.") from error
    except ValueError as error:
        raise InputError(file, "is no .box file", _REMEDY) from error
    centres = corner_and_sides[:, :2] + 0.5 * corner_and_sides[:, 2:]
    return Table({"coordinate_x": centres[:, 0], "coordinate_y": centres[:, 1]})


def write_box(path: str | Path, coordinates: Float[np.ndarray, "n 2"], box: int) -> None:
    """EMAN's .box of picks (x, y) in pixels, with square boxes; corners are whole pixels."""
    corners = np.rint(coordinates - 0.5 * box).astype(np.int64)
    write_text(Path(path), "".join(f"{x}\t{y}\t{box}\t{box}\n" for x, y in corners))
