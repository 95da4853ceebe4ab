"""failed.star: which movies or micrographs a job left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitreous.data.table import Table
from vitreous.io.relion import read_table, write_tables

_ITEM, _REASON = "vitreousItem", "vitreousReason"
NAME = "failed.star"


def write_failed(directory: str | Path, failures: Sequence[tuple[str, str]]) -> None:
    """Write (item, reason) of each; where nothing failed, an older file goes away."""
    path = Path(directory) / NAME
    if not failures:
        path.unlink(missing_ok=True)
        return
    # STAR knows no way to write both kinds of quotes.
    reasons = [" ".join(reason.replace('"', "'").split()) for _, reason in failures]
    items = np.array([item for item, _ in failures], dtype=object)
    write_tables(path, {"failed": Table({_ITEM: items, _REASON: np.array(reasons, dtype=object)})})


def read_failed(directory: str | Path) -> list[tuple[str, str]]:
    """(item, reason) of what a job left out; empty where there is no such file."""
    path = Path(directory) / NAME
    if not path.exists():
        return []
    table = read_table(path, "failed")
    return [(str(item), str(reason)) for item, reason in zip(table[_ITEM], table[_REASON], strict=True)]
