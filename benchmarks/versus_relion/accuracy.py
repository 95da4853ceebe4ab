"""How good a classification is against the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def counts(found: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Particles by found class (rows) and true class (columns); both counted from 0."""
    table = np.zeros((int(found.max()) + 1, int(truth.max()) + 1), dtype=np.int64)
    np.add.at(table, (found, truth), 1)
    return table


def purity(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of the particles that belong to the commonest kind of their class."""
    return float(counts(found, truth).max(1).sum() / len(found))


def matched_agreement(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of the particles in the right class, each found class paired with another true one, best pairing."""
    table = counts(found, truth)
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / len(found))
