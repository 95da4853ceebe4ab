"""Sums of ranks through files, for clusters whose disk is faster than their network (RELION's "combine via disc").

Each rank writes its tensor, adds up one stripe of everybody's, and reads the others' stripes: a rank reads twice the
tensor's size however many ranks there are, and all end with the same bits, since each stripe is added up once.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.runtime.atomic import atomic_path

SMALL = 4096  # bytes; less than that goes over any network as fast as a file is opened
_SEEN_S = 90.0  # NFS may hide a new file for a minute
_POLL_S = 0.02
log = logging.getLogger(__name__)


@dataclass
class SumFiles:
    """Where one rank's end of the sums lies. folder: for this run alone, on a disk that all ranks see."""

    folder: Path
    rank: int
    size: int
    _number: count[int] = field(default_factory=count)
    _read: list[Path] = field(default_factory=list)

    def sum_(self, tensor: torch.Tensor, meet: Callable[[], None]) -> None:
        """Add up a contiguous tensor over the ranks, in place. meet: returns when all ranks have called it.

        Raises InputError where the disk is full, or ranks do not see each other's files.
        """
        number = next(self._number)
        flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        values = flat.detach().cpu().numpy().reshape(-1)
        ends = np.linspace(0, len(values), self.size + 1).astype(int)
        mine = slice(ends[self.rank], ends[self.rank + 1])
        try:
            self._write(self._part(number, self.rank), values)
            meet()
            self._forget()  # all have come here: nobody reads the files of the sum before any more
            total = values[mine].copy()
            total[:] = 0
            for rank in range(self.size):
                total += _read(self._part(number, rank), values.dtype, mine)
            self._write(self._stripe(number, self.rank), total)
            meet()
            pieces = [_read(self._stripe(number, rank), values.dtype) for rank in range(self.size)]
        except OSError as error:
            what = f"the ranks' sums cannot be kept there: {error.strerror or error}"
            raise InputError(self.folder, what, "Make room, or add up over the network.") from error
        self._read = [self._part(number, self.rank), self._stripe(number, self.rank)]
        flat.copy_(torch.from_numpy(np.concatenate(pieces)).view(flat.shape))

    def _part(self, number: int, rank: int) -> Path:
        return self.folder / f"{number:06d}_rank{rank:03d}.part"

    def _stripe(self, number: int, rank: int) -> Path:
        return self.folder / f"{number:06d}_rank{rank:03d}.stripe"

    def _write(self, path: Path, values: NDArray[Any]) -> None:
        with atomic_path(path) as temporary:
            values.tofile(temporary)

    def _forget(self) -> None:
        for path in self._read:
            path.unlink(missing_ok=True)


def _read(path: Path, dtype: np.dtype[Any], part: slice | None = None) -> NDArray[Any]:
    """A file's values, or a part of them; waits for a file that another node has written to be seen here."""
    deadline = time.monotonic() + _SEEN_S
    while not path.exists():
        if time.monotonic() > deadline:
            what = f"another rank's {path.name} is not to be seen here"
            raise InputError(path.parent, what, "All nodes need the project's disk; or add up over the network.")
        time.sleep(_POLL_S)
    if part is None:
        return np.fromfile(path, dtype)
    return np.fromfile(path, dtype, count=part.stop - part.start, offset=part.start * dtype.itemsize)


def clean(folder: Path) -> None:
    """Remove what a run left, or one that was killed."""
    if folder.is_dir():
        log.debug("removing %s", folder)
        shutil.rmtree(folder, ignore_errors=True)
