"""What the weighted sums are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class WeightedSamples:
    """Posterior weights of (image, orientation row, shift) samples, sorted by row.

    Pair p is image images[p] at reference row rows[p]; its entries starts[p] .. starts[p+1] are shifts with weights.
    """

    images: NDArray[np.int64]  # (n_pairs,)
    rows: NDArray[np.int64]  # (n_pairs,), rising
    starts: NDArray[np.int64]  # (n_pairs + 1,)
    shifts: NDArray[np.int64]  # (n_entries,)
    weights: NDArray[np.float32]  # (n_entries,)

    @property
    def n_pairs(self) -> int:
        """Number of (image, row) pairs."""
        return len(self.images)


@dataclass(frozen=True)
class WeightedSums:
    """Sums over images for each row that has any.

    rows: (u,); data: complex64 (u, m), sum of weight * CTF X / sigma2 at its shift; power: float32 (u, m), sum of
    weight * CTF^2 / sigma2; gains: float64 (n, n_shells), each image's expected gain by shell (from the masked images).
    """

    rows: NDArray[np.int64]
    data: Complex[Tensor, "u m"]
    power: Float[Tensor, "u m"]
    gains: Float[Tensor, "n n_shells"]
