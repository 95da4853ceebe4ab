"""What ranks send of their stretches of a search, and how the first rank merges it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.kernels.correlate import Statistics
from vitreous.methods.matching.match import Progress
from vitreous.runtime.checkpoint import load_checkpoint

_SEEN_S = 60.0  # until a file that another node has written is seen here


@dataclass(frozen=True)
class Piece:
    """What came of a stretch: its statistics as arrays, or the file that has them. progress: after it, of `total`."""

    arrays: Mapping[str, NDArray[np.generic]] | Path
    next_block: int
    total: int
    size: int


class Rate:
    """Correlations a second of all ranks since it was made: they are ahead of the micrograph that is merged."""

    def __init__(self) -> None:
        self._start, self._count = time.monotonic(), 0

    def __call__(self, count: int) -> float:
        """After so many more."""
        self._count += count
        return self._count / max(time.monotonic() - self._start, 1e-9)


def merged(progress: Progress | None, piece: Piece) -> Progress:
    """The search so far with a further stretch, the next one in order. Raises RuntimeError where it does not come."""
    arrays = _fetched(piece.arrays) if isinstance(piece.arrays, Path) else piece.arrays
    statistics = Statistics.from_arrays(arrays)
    if progress is None:
        return Progress(statistics, piece.next_block, piece.size)
    progress.statistics.merge(statistics)
    progress.next_block = piece.next_block
    return progress


def _fetched(path: Path) -> dict[str, NDArray[np.generic]]:
    """Another rank's statistics; the file goes. Raises RuntimeError where it does not come."""
    deadline = time.monotonic() + _SEEN_S
    while (arrays := load_checkpoint(path)) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{path}: another rank's statistics cannot be read here; ranks need a common file system"
            )
        time.sleep(0.2)
    path.unlink(missing_ok=True)
    return arrays
