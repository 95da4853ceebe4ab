"""What `autopick` keeps of a micrograph: all candidates, so that thresholds can be chosen anew without searching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.relion import read_tables, write_tables
from vitreous.methods.picking.pick import Candidates
from vitreous.methods.picking.threshold import NoiseLaw


def write_candidates(path: Path, found: Candidates, search: str) -> None:
    """Write NAME_candidates.star. search: names the search that they came from."""
    general: dict[str, Any] = {"search": search, "contaminated": found.contaminated}
    general |= {"noise_mode": found.noise.mode, "noise_scale": found.noise.scale}
    rows = Table(
        {
            "coordinate_x": found.coordinates[:, 0],
            "coordinate_y": found.coordinates[:, 1],
            "pick_score": found.scores,
            "pick_diameter": found.diameters,
            "class_number": found.classes,
            "psi": found.psi,
        }
    )
    write_tables(path, {"general": general, "candidates": rows})


def read_candidates(path: Path, search: str) -> Candidates | None:
    """Candidates that an earlier run of this search left; None where they cannot be read back or are another's."""
    try:
        tables = read_tables(path)
        general, rows = tables["general"].row(0), tables["candidates"]
        if str(general["search"]) != search:
            return None
        coordinates = np.stack([rows["coordinate_x"], rows["coordinate_y"]], axis=1)
        noise = NoiseLaw(float(general["noise_mode"]), float(general["noise_scale"]))
        share = float(general["contaminated"])
        scores, diameters = rows["pick_score"], rows["pick_diameter"]
        return Candidates(coordinates, scores, diameters, share, noise, rows["class_number"], rows["psi"])
    except (InputError, KeyError):
        return None
