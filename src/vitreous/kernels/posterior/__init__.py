"""From log-posteriors of samples to the ones that matter and their weights.

A sample's weight is exp(logit) over the sum for its image. The samples kept are the heaviest that together hold
`fraction` of the weight (RELION's adaptive expectation, Scheres (2012) J. Struct. Biol. 180, 519, section 2.2). They
are found with a histogram of logits instead of a sort: the last bin (1/64 in the logarithm) is kept whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vitreous.kernels.compare.inputs import Samples
from vitreous.kernels.posterior import cpu
from vitreous.kernels.posterior.dense import DenseSelection
from vitreous.kernels.weighted_sums.inputs import WeightedSamples

__all__ = [
    "Best",
    "DenseSelection",
    "Selection",
    "SparseSelection",
    "cutoffs",
    "posterior_weights",
    "significant_dense",
    "significant_sparse",
]


class Selection(Protocol):
    """The samples that matter of a batch: how many there are of each image, and the lists of some images."""

    counts: NDArray[np.int64]
    pair_counts: NDArray[np.int64]

    def of(self, members: NDArray[np.int64]) -> Samples:
        """The samples of some images (rising), numbered by their place in `members`."""
        ...


class SparseSelection:
    """A Selection that is a list already."""

    def __init__(self, samples: Samples, n_images: int) -> None:
        self.samples = samples
        first = np.searchsorted(samples.images, np.arange(n_images + 1))
        self.pair_counts: NDArray[np.int64] = np.diff(first)
        self.counts: NDArray[np.int64] = np.diff(samples.starts[first])

    def of(self, members: NDArray[np.int64]) -> Samples:
        """See Selection."""
        return self.samples.of(members)


@dataclass(frozen=True)
class Best:
    """Each image's heaviest sample (pair, orientation child, fine shift), its weight, and log sum exp(logit)."""

    pairs: NDArray[np.int64]
    orientation_children: NDArray[np.int64]
    shifts: NDArray[np.int64]
    weights: NDArray[np.float64]
    log_evidence: NDArray[np.float64]


def cutoffs(
    logits: NDArray[np.float32], starts: NDArray[np.int64], fraction: float, max_samples: int
) -> NDArray[np.float32]:
    """Lowest logit to keep for each image; image i owns logits[starts[i] : starts[i + 1]]."""
    return cpu.cutoffs(logits, starts, fraction, max_samples)


def significant_dense(
    cross: NDArray[np.float32],
    rows: NDArray[np.float32],
    shifts: NDArray[np.float32],
    fraction: float,
    max_samples: int,
) -> DenseSelection:
    """Samples to keep of images compared with every row at every shift.

    cross: (n, shifts, rows); rows (n, rows) and shifts (n, shifts): terms of the logit (priors, norms) that are added.
    """
    return DenseSelection(cross, rows, shifts, fraction, max_samples)


def significant_sparse(
    samples: Samples, logits: NDArray[np.float32], n: int, fraction: float, max_samples: int
) -> SparseSelection:
    """Samples to keep of sparse ones (no children yet) with logits (entries,); pairs sorted by image."""
    bounds = samples.starts[np.searchsorted(samples.images, np.arange(n + 1))]
    floor = cpu.cutoffs(logits, bounds, fraction, max_samples)
    keep = logits >= floor[samples.images[samples.entry_pairs()]]
    running = np.concatenate([[0], np.cumsum(keep)])
    counts = running[samples.starts[1:]] - running[samples.starts[:-1]]
    alive = counts > 0
    starts = np.concatenate([[0], np.cumsum(counts[alive])]).astype(np.int64)
    kept = Samples(samples.images[alive], samples.rows[alive], starts, samples.shifts[keep])
    return SparseSelection(kept, n)


def posterior_weights(
    samples: Samples, logits: NDArray[np.float32], n: int, fraction: float
) -> tuple[WeightedSamples, Best]:
    """Normalised weights of the children that matter, sorted by fine row; and each image's best sample.

    logits: (entries, a, b) from the fine comparison with priors added. Weights of an image sum to one.
    """
    bounds = samples.starts[np.searchsorted(samples.images, np.arange(n + 1))]
    size = logits.shape[1] * logits.shape[2]
    flat = logits.reshape(-1)
    floor = cpu.cutoffs(flat, bounds * size, fraction, 2**62)
    top, evidence, pairs, children, places, kept = cpu.best_samples(logits, samples.starts, samples.images, floor, n)
    n_shift = logits.shape[2]
    shifts = samples.shifts[places // n_shift] * n_shift + places % n_shift
    parts = cpu.emit(logits, (samples.images, samples.rows, samples.starts, samples.shifts), floor, kept)
    weighted = WeightedSamples(*parts)
    return weighted, Best(pairs, children, shifts, np.exp(top - evidence), evidence)
