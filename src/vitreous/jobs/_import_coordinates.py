"""Picks of other programs, under the names that the project's micrographs have."""

from __future__ import annotations

import logging
from typing import Any

from vitreous.core.errors import InputError
from vitreous.io.relion import read_dataset
from vitreous.job import Context, Outputs, Quarantined
from vitreous.jobs._coordinate_files import COORDINATES_NODE, write_coordinates
from vitreous.jobs._picks import match_names, read_picks

log = logging.getLogger(__name__)


def import_coordinates(params: Any, context: Context) -> Outputs:
    """Write NAME_import.star for each micrograph that has picks, and coordinates.star. Raises InputError."""
    if not params.micrographs.endswith(".star"):
        raise InputError("import --coordinates", "needs the micrographs", "Give --micrographs micrographs.star.")
    dataset = read_dataset(context.project / params.micrographs)
    if "micrograph_name" not in dataset.rows:
        raise InputError(context.project / params.micrographs, "lists no micrographs", "Give a list of micrographs.")
    known = dataset.rows["micrograph_name"].astype(str).tolist()
    path = context.project / params.coordinates
    picks = match_names(read_picks(path, context.project, flip_y=params.flip_y), known)
    strangers = [Quarantined(name, "is not in the list of micrographs") for name in picks if name not in known]
    found = {name: picks[name] for name in known if name in picks and picks[name].n_rows}
    if not found:
        first = strangers[0].item if strangers else "none"
        what = f"has picks on none of these micrographs (the first it names: {first})"
        raise InputError(path, what, "Give the micrographs that were picked.")
    for item in strangers:
        log.warning("%s left out: %s", item.item, item.reason)
    target = write_coordinates(found, "_import", context)
    total = sum(table.n_rows for table in found.values())
    words = f"{total} picks on {len(found)} of {len(known)} micrographs"
    words += f"; {len(strangers)} micrographs are not in the list" if strangers else ""
    metrics: dict[str, float | int | str] = {
        "n_picks": total,
        "n_micrographs": len(found),
        "n_left_out": len(strangers),
    }
    return Outputs({context.relative(target): COORDINATES_NODE}, metrics, strangers, words)
