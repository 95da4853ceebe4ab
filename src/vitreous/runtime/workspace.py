"""Large arrays that are used again for the next movie: new memory is had page by page, each zeroed first.

Where a movie's frames are taken anew, that costs as much as all passes over them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Workspace:
    """Arrays by name. Whoever asks for a name anew gets the same memory: what was there before is gone."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.device], Tensor] = {}

    def array(self, name: str, shape: tuple[int, ...], *, device: torch.device | None = None) -> Tensor:
        """A float32 array with whatever is in it; what was had under this name before is not to be used any more."""
        n, key = math.prod(shape), (name, device or torch.device("cpu"))
        if key not in self._held or len(self._held[key]) < n:
            self._held.pop(key, None)  # before the larger one is made
            self._held[key] = torch.empty(n, device=device)
        return self._held[key][:n].view(shape)


class Workspaces:
    """Lends each item in work a workspace of its own: there are as many as items were ever in work at once."""

    def __init__(self) -> None:
        self._free: deque[Workspace] = deque()

    @contextmanager
    def lend(self) -> Iterator[Workspace]:
        """A workspace until the end of the block; nothing made in it may be used after that."""
        try:
            workspace = self._free.pop()
        except IndexError:
            workspace = Workspace()
        try:
            yield workspace
        finally:
            self._free.append(workspace)
