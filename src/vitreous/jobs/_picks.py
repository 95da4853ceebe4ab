"""Picks of many micrographs, from whichever kind of file lists them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.coordinates import read_coordinates
from vitreous.io.cryosparc_picks import read_cryosparc_picks
from vitreous.io.relion import read_dataset, read_tables

_REMEDY = "Give an autopick.star, a STAR file of particles that know their place, or cryoSPARC's picks (.cs)."


def read_picks(path: Path, project: Path, *, flip_y: bool = False) -> dict[str, Table]:
    """Picks (coordinate_x, coordinate_y in pixels, and what else is known) by the name of their micrograph.

    path: a list of coordinate files, a STAR file of particles or picks with micrograph names, or a .cs file, whose y
    flip_y turns round. Raises InputError.
    """
    if path.suffix == ".cs":
        return read_cryosparc_picks(path, flip_y=flip_y)
    tables = read_tables(path)
    listing = tables.get("coordinate_files")
    if listing is not None:
        return _of_listing(path, listing, project)
    rows = next((table for table in tables.values() if "coordinate_x" in table and "micrograph_name" in table), None)
    if rows is None:
        raise InputError(path, "lists no coordinate files (data_coordinate_files), nor particles", _REMEDY)
    return by_micrograph(read_dataset(path).rows if "particles" in tables else rows)


def _of_listing(path: Path, listing: Table, project: Path) -> dict[str, Table]:
    if "micrograph_name" not in listing or "coordinate_file" not in listing:
        raise InputError(path, "does not list micrographs with coordinate files", _REMEDY)
    files = zip(listing["micrograph_name"], listing["coordinate_file"], strict=True)
    return {str(name): read_coordinates(project / str(file)) for name, file in files}


def picks_by_suffix(micrographs: Dataset, project: Path, directory: str, suffix: str) -> dict[str, Table]:
    """Picks of the files DIRECTORY/below/NAME + suffix, as RELION 3.1 finds them; micrographs without a file have none.

    below: the micrograph's folder, without the job that made it (MotionCorr/job002/). Raises InputError where there is
    no file at all.
    """
    picks = {}
    for raw in micrographs.rows["micrograph_name"]:
        name = Path(str(raw))
        parts = name.parts[2:] if len(name.parts) > 2 and name.parts[1].startswith("job") else name.parts
        stem = Path(*parts).with_suffix("")
        for place in (project / directory / stem, project / directory / stem.name):
            file = place.with_name(place.name + suffix)
            if file.is_file():
                picks[str(raw)] = read_coordinates(file)
                break
    if not picks:
        raise InputError(project / directory, f"holds no coordinates of these micrographs (*{suffix})", "Check both.")
    return picks


def at_least(picks: Table, min_score: float | None) -> Table:
    """Picks of this score and better; all of them where none is asked for, or none is known."""
    return picks if min_score is None or "pick_score" not in picks else picks.take(picks["pick_score"] >= min_score)


def by_micrograph(rows: Table) -> dict[str, Table]:
    """Rows apart by their micrograph's name, in the order of the names, each in the order of the file."""
    names = rows["micrograph_name"].astype(str)
    order = np.argsort(names, kind="stable")
    bounds = np.flatnonzero(np.append(names[order][1:] != names[order][:-1], True)) + 1
    return {str(names[part[0]]): rows.take(part) for part in np.split(order, bounds)[:-1]} if len(names) else {}


def match_names(picks: dict[str, Table], known: list[str]) -> dict[str, Table]:
    """The picks under the names by which micrographs are known here; those of unknown micrographs keep their names.

    Other programs put things before and after: the same file name will do, then the one name that is part of it.
    """
    files = {Path(name).name: name for name in known}
    stems = sorted(((Path(name).stem, name) for name in known), key=lambda pair: -len(pair[0]))
    found = {}
    for theirs, table in picks.items():
        if theirs in known:
            found[theirs] = table
            continue
        name = files.get(Path(theirs).name)
        if name is None:
            within = [ours for stem, ours in stems if _holds(Path(theirs).stem, stem)]
            longest = [ours for ours in within if len(Path(ours).stem) == len(Path(within[0]).stem)]
            name = longest[0] if len(longest) == 1 else theirs
        found[name] = table
    return found


def _holds(name: str, part: str) -> bool:
    """Whether part stands in name by itself: m1 is not in m10."""
    return re.search(rf"(?<![0-9A-Za-z]){re.escape(part)}(?![0-9A-Za-z])", name) is not None
