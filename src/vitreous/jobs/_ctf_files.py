"""What `ctf` keeps beside each micrograph's picture: the fit and its curve, for resuming and for the report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.relion import read_tables, write_tables
from vitreous.methods.ctf_fitting.fit import CtfFit


def picture_of(stem: Path) -> Path:
    """The diagnostic image."""
    return stem.with_name(f"{stem.name}_ctf.mrc")


def write_fit(stem: Path, name: str, values: dict[str, float], previous: float | None, fit: CtfFit) -> None:
    """STEM_ctf.star. previous: relative score of the defocus that the input carried, None where it had none."""
    general: dict[str, Any] = {"micrograph_name": name, **values}
    general["ctf_b_factor"] = fit.b_factor
    general["previous_score"] = math.nan if previous is None else previous
    curve = fit.curve
    columns = {"frequency": curve.k, "data": curve.data, "model": curve.model, "local_correlation": curve.correlation}
    write_tables(picture_of(stem).with_suffix(".star"), {"general": general, "equiphase": Table(columns)})


def read_fit(stem: Path, names: tuple[str, ...]) -> tuple[dict[str, float], float | None] | None:
    """The values by these names and the previous score of an earlier run, if picture and file are whole."""
    path = picture_of(stem).with_suffix(".star")
    if not (picture_of(stem).exists() and path.exists()):
        return None
    try:
        row = read_tables(path)["general"].row(0)
        previous = float(row["previous_score"])
        return {name: float(row[name]) for name in names}, None if math.isnan(previous) else previous
    except (InputError, LookupError, ValueError):
        return None
