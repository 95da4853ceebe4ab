"""What the comparison is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor


def as_parts(values: Complex[Tensor, "*batch m"]) -> Float[Tensor, "*batch two_m"]:
    """Real and imaginary parts in turn, as one real vector: a view of what is contiguous, no copy.

    The dot product of two such vectors is Re[conj(a) . b].
    """
    return torch.view_as_real(values.resolve_conj().contiguous()).flatten(-2)


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
class DenseRows:
    """Projections laid out for matrix products with many batches of images.

    parts: float32 (r, 2m), real and imaginary parts in turn; power: float32 (r, m), their squared moduli.
    """

    parts: Float[Tensor, "r two_m"]
    power: Float[Tensor, "r m"]


@dataclass(frozen=True)
class DenseGains:
    """Gains of all samples in two parts: cross (n, shifts, r) less norms (n, r), float32."""

    cross: Float[Tensor, "n t r"]
    norms: Float[Tensor, "n r"]

    def total(self) -> Float[Tensor, "n r t"]:
        """The gains themselves."""
        return (self.cross - self.norms[:, None]).transpose(1, 2)


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

    @staticmethod
    def at_all_shifts(images: NDArray[np.int64], rows: NDArray[np.int64], n_shifts: int) -> Samples:
        """Pairs of an image and a row, each at every shift."""
        n_pairs = len(images)
        return Samples(images, rows, np.arange(n_pairs + 1) * n_shifts, np.tile(np.arange(n_shifts), n_pairs))

    @property
    def n_pairs(self) -> int:
        """Number of (image, row) pairs."""
        return len(self.images)

    @property
    def n_entries(self) -> int:
        """Number of (image, row, shift) samples before oversampling."""
        return len(self.shifts)

    def of(self, members: NDArray[np.int64]) -> Samples:
        """The samples of some images (rising), numbered by their place in `members`."""
        place = np.searchsorted(members, self.images)
        keep = np.isin(self.images, members)
        entries = np.repeat(keep, np.diff(self.starts))
        starts = np.concatenate([[0], np.cumsum(np.diff(self.starts)[keep])]).astype(np.int64)
        return replace(
            self,
            images=place[keep].astype(np.int64),
            rows=self.rows[keep],
            starts=starts,
            shifts=self.shifts[entries],
        )

    def entry_pairs(self) -> NDArray[np.int64]:
        """The pair of each entry."""
        return np.repeat(np.arange(self.n_pairs), np.diff(self.starts))
