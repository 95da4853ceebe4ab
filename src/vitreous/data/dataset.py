"""Rows (movies, micrographs or particles) with the optics groups they were recorded in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitreous.data.table import Table

Kind = Literal["movies", "micrographs", "particles"]


@dataclass(frozen=True)
class Dataset:
    """What a RELION 3.1 STAR file holds: one optics table and one table of rows with an optics_group each."""

    kind: Kind
    optics: Table
    rows: Table

    def __len__(self) -> int:
        return self.rows.n_rows

    def take(self, rows: ArrayLike) -> Dataset:
        """The same optics with the rows picked by indices or mask."""
        return replace(self, rows=self.rows.take(rows))

    def with_columns(self, **columns: ArrayLike) -> Dataset:
        """A copy with columns of the rows added or replaced."""
        return replace(self, rows=self.rows.with_columns(**columns))

    def optics_of_rows(self, name: str) -> NDArray[Any]:
        """An optics column spread over the rows. Raises KeyError where a row's group is not in the optics table."""
        groups = {int(group): index for index, group in enumerate(self.optics["optics_group"])}
        index = np.array([groups[int(group)] for group in self.rows["optics_group"]], dtype=np.int64)
        return self.optics[name][index]
