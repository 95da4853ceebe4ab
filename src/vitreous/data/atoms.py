"""Atomic models: where the atoms are, what they are, how much they move."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Atoms:
    """n atoms: positions (n, 3) in A as x, y, z; elements (n,) symbols ("C", "Fe"); b_factors (n,) in A^2
    (isotropic); occupancies (n,) 0-1. Raises ValueError on unequal lengths."""

    positions: NDArray[np.float64]
    elements: NDArray[Any]
    b_factors: NDArray[np.float64]
    occupancies: NDArray[np.float64]

    def __post_init__(self) -> None:
        n = len(self.elements)
        if self.positions.shape != (n, 3) or self.b_factors.shape != (n,) or self.occupancies.shape != (n,):
            raise ValueError(
                f"{n} elements with positions {self.positions.shape}, B factors {self.b_factors.shape}, "
                f"occupancies {self.occupancies.shape}"
            )

    def __len__(self) -> int:
        return len(self.elements)

    def take(self, rows: ArrayLike) -> Atoms:
        """The atoms picked by indices or a boolean mask."""
        index = np.asarray(rows)
        return Atoms(self.positions[index], self.elements[index], self.b_factors[index], self.occupancies[index])

    def moved(self, rotation: ArrayLike, translation: ArrayLike = (0.0, 0.0, 0.0)) -> Atoms:
        """Each atom taken to rotation @ (x, y, z) + translation."""
        positions = self.positions @ np.asarray(rotation, dtype=np.float64).T + np.asarray(translation)
        return replace(self, positions=positions)

    def centred(self) -> Atoms:
        """Moved so that the mean of the positions is the origin."""
        return replace(self, positions=self.positions - self.positions.mean(axis=0))
