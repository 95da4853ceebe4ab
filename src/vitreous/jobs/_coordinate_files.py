"""Picks written for RELION: a file a micrograph, and the list of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.data.table import Table
from vitreous.io.relion import write_tables
from vitreous.job import Context

COORDINATES_NODE = "MicrographCoordsGroup.star.relion"
_KEPT = ("coordinate_x", "coordinate_y", "pick_score", "class_number", "psi")


def write_coordinates(picks: dict[str, Table], suffix: str, context: Context) -> Path:
    """NAME + suffix for each micrograph, and coordinates.star that lists them; returns the list's path."""
    names, files = [], []
    for name, table in picks.items():
        target = Path(f"{context.place_of(name)}{suffix}.star")
        write_tables(target, {"": Table({column: table[column] for column in _KEPT if column in table})})
        names.append(name)
        files.append(context.relative(target))
    listing = Table(
        {"micrograph_name": np.array(names, dtype=object), "coordinate_file": np.array(files, dtype=object)}
    )
    path = context.directory / "coordinates.star"
    write_tables(path, {"coordinate_files": listing})
    return path
