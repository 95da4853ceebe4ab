"""A table of named columns of equal length: particles, micrographs, picks, shells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Table(Mapping[str, NDArray[Any]]):
    """Columns by name, all of one length. Rows are taken with `take`; a table is changed by making a new one.

    Columns are numpy arrays: float64, int64, bool or object (strings). Raises ValueError on unequal lengths.
    """

    def __init__(self, columns: Mapping[str, ArrayLike] | None = None) -> None:
        self._columns: dict[str, NDArray[Any]] = {}
        for name, values in (columns or {}).items():
            array = np.asarray(values)
            if array.ndim != 1:
                raise ValueError(f"column {name} has {array.ndim} dimensions, not 1")
            if array.dtype.kind in "US":
                array = array.astype(object)
            self._columns[name] = array
        lengths = {name: len(array) for name, array in self._columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of unequal length: {lengths}")

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """Number of columns (a Mapping's length); rows are `n_rows`."""
        return len(self._columns)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self._columns.values()))) if self._columns else 0

    def take(self, rows: ArrayLike) -> Table:
        """The rows picked by indices or by a boolean mask."""
        index = np.asarray(rows)
        return Table({name: values[index] for name, values in self._columns.items()})

    def with_columns(self, **columns: ArrayLike) -> Table:
        """A copy with columns added or replaced; a scalar fills its column."""
        n = self.n_rows
        new = {name: np.full(n, value) if np.ndim(value) == 0 else value for name, value in columns.items()}
        return Table({**self._columns, **new})

    def without(self, *names: str) -> Table:
        """A copy without these columns (missing ones are ignored)."""
        return Table({name: values for name, values in self._columns.items() if name not in names})

    def row(self, index: int) -> dict[str, Any]:
        """One row as a plain dictionary."""
        return {name: values[index] for name, values in self._columns.items()}

    @staticmethod
    def concatenate(tables: list[Table]) -> Table:
        """Stack tables with the same columns. Raises ValueError where they differ."""
        if not tables:
            return Table()
        names = list(tables[0])
        for table in tables[1:]:
            if set(table) != set(names):
                raise ValueError(f"tables have different columns: {sorted(set(table) ^ set(names))}")
        return Table({name: np.concatenate([table[name] for table in tables]) for name in names})
