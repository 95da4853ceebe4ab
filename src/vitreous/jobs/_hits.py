"""What the jobs on found molecules share: a results table read back, its micrographs filtered as for the search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError
from vitreous.core.named_aberrations import Aberrations
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.leopard import read_results
from vitreous.io.mrc import read_map
from vitreous.job import Context, parameter
from vitreous.jobs._matching import load_micrograph
from vitreous.jobs._matching_parameters import FilterParameters, filters_of
from vitreous.methods.matching.filters import prepare_micrograph
from vitreous.methods.matching.local import Field, Place
from vitreous.methods.matching.transfer import Lens


class HitParameters(FilterParameters):
    """Where the molecules are, and how the micrographs are filtered (as in the search that found them)."""

    hits: str = parameter(help="results.csv of match-template, refine-template or Leopard-EM", aliases=("i", "input"))
    template: str = parameter("", help="template volume (default: the one that the table names)", aliases=("ref",))
    b_factor: float = parameter(0.0, help="B factor on the template", unit="A^2", ge=0)
    padding: int = parameter(
        2, help="oversampling of the template's transform", aliases=("pad",), advanced=True, ge=1, le=2
    )


@dataclass(frozen=True)
class HitsOfMicrograph:
    """rows: of the table; field: the micrograph made ready; places: its molecules in the order of the rows."""

    rows: Table
    path: Path
    field: Field
    places: list[Place]


def read_hits(params: HitParameters, context: Context) -> Table:
    """The table with refined values where there are any. Raises InputError where it is empty."""
    path = context.project / params.hits
    table = read_results(path)
    if table.n_rows == 0:
        raise InputError(path, "lists no molecule", "Lower the threshold of match-template.")
    names = ("pos_x", "pos_y", "phi", "theta", "psi", "relative_defocus")
    return table.with_columns(**{n: table[f"refined_{n}"] for n in names if f"refined_{n}" in table})


def read_template(params: HitParameters, table: Table, context: Context) -> tuple[Volume, Path]:
    """The volume to look for. Raises InputError for an odd box."""
    path = context.project / (params.template or str(table["template_path"][0]))
    volume = read_map(path)
    if volume.box % 2:
        raise InputError(path, f"has an odd box of {volume.box}", "Pad it by one voxel.")
    return volume, path


def by_micrograph(
    table: Table, template: Volume, params: HitParameters, context: Context, *, box: int = 0
) -> Iterator[HitsOfMicrograph]:
    """One micrograph after another, in the table's order. box: of the template that the positions are of (0: this)."""
    names = table["micrograph_path"].astype(str)
    for name in dict.fromkeys(names):
        rows = table.take(np.flatnonzero(names == name))
        path = context.project / name
        lens = lens_of_row(rows.row(0), params.b_factor)
        image = load_micrograph(path, template, lens.pixel_size)
        filters = filters_of(params, lens.pixel_size)
        try:
            prepared = prepare_micrograph(image, filters, torch.Generator().manual_seed(context.seed))
        except ValueError as error:
            raise InputError(path, str(error), "Look at the image.") from error
        field = Field.of(prepared.image, template.density, lens, prepared.whitening, filters, padding=params.padding)
        places = [_place(rows.row(i)) for i in range(rows.n_rows)]
        side = box or template.box
        outside = [p for p in places if any(not 0 <= p.position[i] <= image.shape[i] - side for i in range(2))]
        if outside:
            y, x = outside[0].position
            raise InputError(
                context.project / params.hits, f"has a molecule at ({x}, {y}) whose box of {side} leaves {path.name}",
                "Give the template of the search.",
            )  # fmt: skip
        yield HitsOfMicrograph(rows, path, field, places)


def lens_of_row(row: dict[str, Any], b_factor: float) -> Lens:
    """The optics that a row of the table tells."""
    number = {name: float(row[name]) for name in ("pixel_size", "defocus_u", "defocus_v", "voltage")}
    matrix = _json(row.get("mag_matrix")) or [1.0, 0.0, 0.0, 1.0]
    aberrations = Aberrations(
        odd=_json(row.get("odd_zernikes")) or {},
        even=_json(row.get("even_zernikes")) or {},
        magnification=((float(matrix[0]), float(matrix[1])), (float(matrix[2]), float(matrix[3]))),
    )
    microscope = Microscope(
        number["voltage"], float(row["spherical_aberration"]), float(row["amplitude_contrast_ratio"])
    )
    lens = Lens(number["pixel_size"], microscope, number["defocus_u"], number["defocus_v"])
    return replace(
        lens,
        defocus_angle=float(row["astigmatism_angle"]),
        phase_shift=float(row["phase_shift"]),
        b_factor=b_factor,
        aberrations=aberrations,
    )


def _json(text: Any) -> Any:
    try:
        return json.loads(str(text).replace("'", '"')) if text not in ("", None) else None
    except json.JSONDecodeError:
        return None


def _place(row: dict[str, Any]) -> Place:
    angles = torch.tensor([float(row[name]) for name in ("phi", "theta", "psi")], dtype=torch.float64)
    position = round(float(row["pos_y"])), round(float(row["pos_x"]))
    return Place(position, angles, float(row["relative_defocus"]))
