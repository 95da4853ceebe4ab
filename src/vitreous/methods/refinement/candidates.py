"""The orientations that a local search looks at: a list for each particle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitreous.kernels.compare import Samples


@dataclass(frozen=True)
class Candidates:
    """Each particle's own list of orientations (local searches), lists laid end to end.

    Particle i may take rows[starts[i] : starts[i + 1]] (class * R + coarse rotation), with these log-priors.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    log_prior: NDArray[np.float32]

    @property
    def mean_count(self) -> float:
        """How many candidates a particle that has any has."""
        return len(self.rows) / max(1, int(np.count_nonzero(np.diff(self.starts))))

    def of(self, particles: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The candidates of some particles: each one's place among `particles`, and its place in the lists."""
        counts = self.starts[particles + 1] - self.starts[particles]
        owners = np.repeat(np.arange(len(particles)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owners, self.starts[particles][owners] + within

    def log_prior_of(self, particles: NDArray[np.int64], samples: Samples) -> NDArray[np.float32]:
        """Log-prior of each pair of `samples` (images numbered by place in `particles`), all among the candidates."""
        owners, where = self.of(particles)
        rows = self.rows[where]
        width = int(rows.max(initial=0)) + 1
        keys = owners * width + rows
        order = np.argsort(keys, kind="stable")
        found = np.searchsorted(keys, samples.images * width + samples.rows, sorter=order)
        return self.log_prior[where[order[found]]]
