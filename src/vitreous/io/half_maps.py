"""Half-maps and masks that belong together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map

_VOXEL_TOLERANCE = 1e-3  # relative: header values are float32


def other_half(path: str | Path) -> Path:
    """The partner of a half-map by RELION's naming: half1 <-> half2 in the file name.

    Raises InputError where the name has neither.
    """
    file = Path(path)
    found = list(re.finditer(r"half([12])", file.name))
    if not found:
        raise InputError(file, "is not named as a half-map", "Half-maps are named ..half1.. and ..half2..")
    last = found[-1]
    other = "2" if last.group(1) == "1" else "1"
    return file.with_name(file.name[: last.start(1)] + other + file.name[last.end(1) :])


def read_half_maps(path: str | Path) -> tuple[Volume, Volume]:
    """Half-maps 1 and 2, given either of them. Raises InputError where the other is missing or does not match."""
    partner = other_half(path)
    if not partner.is_file():
        raise InputError(path, f"has no partner {partner.name} beside it", "Both half-maps must be in one folder.")
    one, two = sorted((Path(path), partner), key=lambda file: "half2" in file.name)
    first, second = read_map(one), read_map(two)
    _match(one, first, two, second)
    return first, second


def read_matching_mask(path: str | Path, volume: Volume) -> Volume:
    """A mask of the volume's box and voxel size, values 0 to 1.

    Raises InputError where it does not match, goes beyond 0..1 or is empty.
    """
    mask = read_map(path)
    _match(Path(path), mask, Path("the map"), volume)
    low, high = float(mask.density.min()), float(mask.density.max())
    # 1e-3: soft edges that were filtered or rescaled overshoot by rounding.
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(path, f"is no mask: its values go from {low:.3g} to {high:.3g}", "A mask runs from 0 to 1.")
    if high <= 0:
        raise InputError(path, "is an empty mask", "Make it with a lower threshold.")
    return Volume(mask.density.clamp(0.0, 1.0), volume.voxel_size)


def _match(path: Path, volume: Volume, other_path: Path, other: Volume) -> None:
    if volume.box != other.box:
        what = f"has box {volume.box}, {other_path} has {other.box}"
        raise InputError(path, what, "Give files of one box size.")
    if not np.isclose(volume.voxel_size, other.voxel_size, rtol=_VOXEL_TOLERANCE):
        what = f"has voxel size {volume.voxel_size:.4f} A, {other_path} has {other.voxel_size:.4f} A"
        raise InputError(path, what, "Give files of one voxel size.")
