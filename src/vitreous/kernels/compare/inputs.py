"""What the comparison is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class WhitenedImages:
    """n images ready to be compared at m packed coefficients.

    data: complex64 (n, m), transform times CTF / sigma2; half_power: float32 (n, m), CTF^2 / (2 sigma2).
    """

    data: Complex[Tensor, "n m"]
    half_power: Float[Tensor, "n m"]

    @property
    def n_images(self) -> int:
        """Number of images."""
        return int(self.data.shape[0])

    def first(self, m: int) -> WhitenedImages:
        """Only the first m coefficients (a lower resolution)."""
        return WhitenedImages(self.data[:, :m], self.half_power[:, :m])


@dataclass(frozen=True)
class Samples:
    """A sparse set of (image, orientation, shift) samples, each with its oversampled children.

    A pair is an image with one row of orientations; its entries (starts[p] .. starts[p+1]) are the shifts kept
    with it. Children of row r are the reference rows r * orientation_children + a, those of shift t the phases
    t * shift_children + b. int64 arrays; pairs sorted by image.
    """

    images: NDArray[np.int64]  # (n_pairs,)
    rows: NDArray[np.int64]  # (n_pairs,)
    starts: NDArray[np.int64]  # (n_pairs + 1,)
    shifts: NDArray[np.int64]  # (n_entries,)
    orientation_children: int = 1
    shift_children: int = 1

    @property
    def n_pairs(self) -> int:
        """Number of (image, row) pairs."""
        return len(self.images)

    @property
    def n_entries(self) -> int:
        """Number of (image, row, shift) samples before oversampling."""
        return len(self.shifts)

    def entry_pairs(self) -> NDArray[np.int64]:
        """The pair of each entry."""
        return np.repeat(np.arange(self.n_pairs), np.diff(self.starts))
