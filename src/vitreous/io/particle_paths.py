"""Where the stacks of a particle STAR file from elsewhere lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset

_LEVELS_UP = 4  # Extract/job009/particles.star names files from its project, two levels up


def locate_stacks(dataset: Dataset, project: Path, star: Path) -> Dataset:
    """Image names as they must stand in this project's STAR files.

    Names are relative to the project they were made in: that is this one, or else the STAR file's folder or one of
    the folders above it. Names of stacks outside the project become absolute.
    Raises InputError where a stack is in none of these places.
    """
    if "image_name" not in dataset.rows:
        raise InputError(star, "has no _rlnImageName column", "Give the STAR file of extracted particles.")
    names = dataset.rows["image_name"].tolist()
    files = dict.fromkeys(name.rpartition("@")[2] for name in names)
    bases = [project, *list(star.absolute().parents)[:_LEVELS_UP]]
    placed = {file: _place(file, bases, star) for file in files}
    if all(placed[file] == file for file in files):
        return dataset
    moved = []
    for name in names:
        number, at, file = name.rpartition("@")
        moved.append(f"{number}{at}{placed[file]}")
    return dataset.with_columns(image_name=np.array(moved, dtype=object))


def _place(file: str, bases: list[Path], star: Path) -> str:
    for base in bases:
        if (base / file).is_file():
            if base is bases[0]:
                return file
            found = (base / file).absolute()
            root = bases[0].absolute()
            return str(found.relative_to(root)) if found.is_relative_to(root) else str(found)
    raise InputError(star, f"names the stack {file}, which is not there", "Start in the project it belongs to.")
