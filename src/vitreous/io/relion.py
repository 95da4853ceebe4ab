"""RELION's STAR files and our tables: the only place that knows rln names (with data/columns.py).

Files of 3.0 and earlier (no optics table, origins in pixels, CTF per particle) are brought up to 3.1's form
on reading; unknown labels stay as they are, as columns of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.columns import BY_LABEL, BY_NAME, Kind
from vitreous.data.dataset import Dataset
from vitreous.data.dataset import Kind as DatasetKind
from vitreous.data.table import Table
from vitreous.io.relion_upgrade import check_groups, upgrade_to_optics, upgrade_units
from vitreous.io.star import StarBlock, read_star, write_star

_VERSION = "version 30001"  # what RELION 3.1 writes and every later one reads
_KINDS: tuple[DatasetKind, ...] = ("particles", "micrographs", "movies")


def read_dataset(path: str | Path) -> Dataset:
    """Read movies, micrographs or particles with their optics groups.

    Raises InputError where the file has none of these, or rows name an optics group that is not there.
    """
    blocks = read_star(path, kind_of=_kind_of)
    optics = _rename(blocks["optics"].columns) if "optics" in blocks else None
    kind, rows = _find_rows(Path(path), blocks)
    if optics is not None and "optics_group" in optics:
        optics = upgrade_units(optics, None)
        return Dataset(kind, optics, check_groups(Path(path), optics, upgrade_units(rows, optics)))
    optics, rows = upgrade_to_optics(Path(path), kind, rows)
    return Dataset(kind, optics, rows)


def write_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write a dataset as RELION 3.1 does: data_optics, then data_particles, data_micrographs or data_movies."""
    write_tables(path, {"optics": dataset.optics, dataset.kind: dataset.rows})


def read_table(path: str | Path, block: str | None = None) -> Table:
    """Read one block with our column names; block None: the only one there is.

    A block of single values comes as a table of one row. Raises InputError where the block is missing.
    """
    blocks = read_star(path, only=None if block is None else (block,), kind_of=_kind_of)
    if block is None:
        if len(blocks) != 1:
            raise InputError(path, f"has {len(blocks)} blocks ({', '.join(blocks)})", "Name the one you mean.")
        block = next(iter(blocks))
    if block not in blocks:
        raise InputError(path, f"has no block data_{block}", "Give the STAR file of the right job.")
    return _rename(blocks[block].columns)


def read_tables(path: str | Path) -> dict[str, Table]:
    """Read every block with our column names; a block of single values is a table of one row."""
    return {name: _rename(block.columns) for name, block in read_star(path, kind_of=_kind_of).items()}


def write_tables(path: str | Path, tables: Mapping[str, Table | Mapping[str, Any]]) -> None:
    """Write blocks from tables (loops) or plain dictionaries (single values), our names or rln labels."""
    blocks = {}
    for name, table in tables.items():
        if isinstance(table, Table):
            columns = Table({_label(column): _as_int(values) for column, values in table.items()})
            blocks[name] = StarBlock(columns, comments=(_VERSION,))
        else:
            blocks[name] = StarBlock.of_values({_label(k): v for k, v in table.items()}, (_VERSION,))
    write_star(path, blocks)


def _label(name: str) -> str:
    return BY_NAME[name].label if name in BY_NAME else name


def _as_int(values: Any) -> Any:
    return values.astype(np.int64) if values.dtype == np.bool_ else values


def _kind_of(label: str) -> Kind | None:
    return BY_LABEL[label].kind if label in BY_LABEL else None


def _rename(columns: Table) -> Table:
    return Table({BY_LABEL[label].name if label in BY_LABEL else label: v for label, v in columns.items()})


def _find_rows(path: Path, blocks: Mapping[str, StarBlock]) -> tuple[DatasetKind, Table]:
    for kind in _KINDS:
        if kind in blocks:
            return kind, _rename(blocks[kind].columns)
    marks: tuple[tuple[str, DatasetKind], ...] = (
        ("image_name", "particles"),
        ("movie_name", "movies"),
        ("micrograph_name", "micrographs"),
    )
    for name, block in blocks.items():
        rows = _rename(block.columns)
        if name == "optics" or not block.is_loop:
            continue
        for column, kind in marks:
            if column in rows:
                return kind, rows
    raise InputError(path, "holds no movies, micrographs or particles", "Give the STAR file that lists them.")
