"""Bring tables of RELION 3.0 and earlier to 3.1's form: optics groups, origins in Angstrom."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Kind
from vitreous.data.table import Table

_MICROMETRE = 1e4  # A
# Columns that were constant over a microscope session and belong to the optics table since 3.1.
_OPTICS_COLUMNS = (
    "voltage",
    "cs",
    "amplitude_contrast",
    "movie_pixel_size",
    "micrograph_pixel_size",
    "pixel_size",
    "box",
    "image_dimensionality",
    "mtf_file",
    "beam_tilt_x",
    "beam_tilt_y",
    "rlnBeamTiltClass",
)
_PIXEL_ORIGINS = {
    "rlnOriginX": "origin_x",
    "rlnOriginY": "origin_y",
    "rlnOriginZ": "rlnOriginZAngst",
    "rlnOriginXPrior": "origin_x_prior",
    "rlnOriginYPrior": "origin_y_prior",
    "rlnOriginZPrior": "rlnOriginZPriorAngst",
}
_PIXEL_SIZES = ("pixel_size", "micrograph_pixel_size", "movie_pixel_size")


def upgrade_units(rows: Table, optics: Table | None) -> Table:
    """Origins in pixels (3.0 and earlier, some converters' 3.1 files) to Angstrom; existing ones in A win."""
    old = [name for name in _PIXEL_ORIGINS if name in rows]
    if not old or optics is None:
        return rows
    pixel_size = _pixel_size_of_rows(rows, optics)
    if pixel_size is None:
        return rows
    columns = {}
    for name, values in rows.items():
        new = _PIXEL_ORIGINS.get(name, name)
        if new == name:
            columns[name] = values
        elif new not in rows:
            columns[new] = values * pixel_size
    return Table(columns)


def _pixel_size_of_rows(rows: Table, optics: Table) -> np.ndarray | None:
    name = next((name for name in _PIXEL_SIZES if name in optics), None)
    if name is None:
        return None
    if "optics_group" not in rows:
        return np.full(rows.n_rows, float(optics[name][0]))
    size_of = dict(zip(optics["optics_group"].tolist(), optics[name].tolist(), strict=True))
    return np.array([size_of.get(group, np.nan) for group in rows["optics_group"].tolist()])


def check_groups(path: Path, optics: Table, rows: Table) -> Table:
    """Every row must name an optics group that exists; without the column there may be only one group."""
    if "optics_group" not in rows:
        if optics.n_rows != 1:
            raise InputError(
                path, f"has {optics.n_rows} optics groups but no _rlnOpticsGroup column", "Add the column."
            )
        return rows.with_columns(optics_group=int(optics["optics_group"][0]))
    missing = np.setdiff1d(rows["optics_group"], optics["optics_group"])
    if len(missing):
        raise InputError(path, f"rows name optics group {missing[0]}, which data_optics lacks", "Add the group.")
    return rows


def upgrade_to_optics(path: Path, kind: Kind, rows: Table) -> tuple[Table, Table]:
    """Make an optics table from the per-row columns of RELION 3.0 and earlier.

    The pixel size is DetectorPixelSize (micrometres) * 10^4 / Magnification, of the images the rows name.
    """
    rows = _pixel_size_from_magnification(kind, rows)
    constant = [name for name in _OPTICS_COLUMNS if name in rows]
    if not constant and "optics_group" not in rows:
        optics = Table({"optics_group_name": np.array(["opticsGroup1"], dtype=object), "optics_group": np.array([1])})
        return optics, rows.with_columns(optics_group=1)
    if not constant:
        raise InputError(path, "names optics groups but has no data_optics block", "Write the file with its optics.")
    group, first = _distinct_rows(rows, constant)
    order = np.arange(len(first))
    optics = Table(
        {
            "optics_group_name": np.array([f"opticsGroup{i + 1}" for i in order], dtype=object),
            "optics_group": order + 1,
            **{name: rows[name][first] for name in constant},
        }
    )
    rows = rows.without(*constant).with_columns(optics_group=group + 1)
    return optics, upgrade_units(rows, optics)


def _pixel_size_from_magnification(kind: Kind, rows: Table) -> Table:
    magnification, detector = "rlnMagnification", "rlnDetectorPixelSize"
    if magnification not in rows or detector not in rows:
        return rows
    target = {"particles": "pixel_size", "micrographs": "micrograph_pixel_size", "movies": "movie_pixel_size"}[kind]
    with np.errstate(divide="ignore"):
        size = np.round(rows[detector].astype(float) * _MICROMETRE / rows[magnification].astype(float), 6)
    if target not in rows and np.all(np.isfinite(size)):
        rows = rows.with_columns(**{target: size})
    return rows.without(magnification, detector)


def _distinct_rows(rows: Table, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Group rows by their values in these columns: group of each row (in order of appearance), first row of each."""
    code = np.zeros(rows.n_rows, dtype=np.int64)
    for name in names:
        values = rows[name].astype(str) if rows[name].dtype == object else rows[name]
        _, column_code = np.unique(values, return_inverse=True)
        _, code = np.unique(code * (column_code.max(initial=0) + 1) + column_code, return_inverse=True)
    _, first, group = np.unique(code, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[group], first[order]
