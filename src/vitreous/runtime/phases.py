"""How long a job spends in each of its phases, on this process's clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Phases:
    """Adds up seconds by name, into a dictionary of the caller's as "NAME_seconds".

    What a GPU still computes when a phase ends counts for the phase that waits for it.
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = {} if seconds is None else seconds

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time of a block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._add(name, time.monotonic() - start)

    def turns(self, items: Iterable[Item], making: str, using: str) -> Iterator[Item]:
        """The same items; the time in which they are made, and that between them, in which they are used."""
        start = time.monotonic()
        for item in items:
            made = time.monotonic()
            self._add(making, made - start)
            yield item
            start = time.monotonic()
            self._add(using, start - made)
        self._add(making, time.monotonic() - start)

    def _add(self, name: str, seconds: float) -> None:
        key = f"{name}_seconds"
        self.seconds[key] = round(self.seconds.get(key, 0.0) + seconds, 6)
