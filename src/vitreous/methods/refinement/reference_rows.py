"""Slices of the references at rows of the coarse grid (class * R + coarse rotation) and at their children."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.compare import DenseRows, prepare_rows
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.references import References


class ReferenceRows:
    """Projects rows, and keeps those that every batch needs.

    n_rotations: R, of the coarse grid; memory: bytes that what is kept may take.
    """

    def __init__(
        self, references: References, coefficients: Coefficients, n_rotations: int, memory: int, device: torch.device
    ) -> None:
        self.count = references.n_classes * n_rotations
        self._references = references
        self._coefficients = coefficients
        self._n_rotations = n_rotations
        self._memory = memory
        self._device = device
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._prepared: DenseRows | None = None

    def prepared(self, rotations: Float[Tensor, "r 3 3"], m: int) -> DenseRows:
        """All coarse rows, the first m coefficients, as the dense comparison wants them; made once."""
        if self._prepared is None:
            self._prepared = prepare_rows(self.slices(np.arange(self.count), rotations, 1, m))
        return self._prepared

    def everything(
        self, rotations: Float[Tensor, "r_a 3 3"], children: int, m: int
    ) -> Complex[Tensor, "rows m"] | None:
        """Slices at the children of all rows, kept for all batches; None where they would take too much memory."""
        if self.count * children * m * 8 >= self._memory:
            return None
        if (children, m) not in self._kept:
            self._kept[children, m] = self.slices(np.arange(self.count), rotations, children, m)
        return self._kept[children, m]

    def slices(
        self, rows: NDArray[np.int64], rotations: Float[Tensor, "r_a 3 3"], children: int, m: int
    ) -> Complex[Tensor, "rows m"]:
        """Slices at the children of rows, which rise."""
        coordinates = self._coefficients.coordinates[:m]
        out = torch.empty(len(rows) * children, m, dtype=torch.complex64, device=self._device)
        bounds = np.searchsorted(rows, np.arange(self._references.n_classes + 1) * self._n_rotations)
        for k in range(self._references.n_classes):
            first, last = int(bounds[k]), int(bounds[k + 1])
            if last == first:
                continue
            fine = ((rows[first:last] - k * self._n_rotations)[:, None] * children + np.arange(children)).reshape(-1)
            chosen = rotations[torch.from_numpy(fine)]
            self._references.slices(k, chosen, coordinates, out=out[first * children : last * children])
        return out
