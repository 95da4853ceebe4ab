"""Progress that a person sees on a terminal and a log file keeps as lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
log = logging.getLogger(__name__)
_LOG_EVERY_S = 30.0


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield items with a live bar (on a terminal) and a log line at most every half minute (anywhere)."""
    count = len(items) if total is None and isinstance(items, Sized) else total
    start = last = time.monotonic()
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(what, total=count)
        for done, item in enumerate(items, 1):
            yield item
            bar.advance(task)
            now = time.monotonic()
            if now - last > _LOG_EVERY_S:
                last = now
                rate = done / (now - start)
                left = f", {(count - done) / rate:.0f} s left" if count else ""
                log.info("%s: %d%s done%s", what, done, f" of {count}" if count else "", left)
    log.info("%s: finished in %.1f s", what, time.monotonic() - start)


class Sparingly:
    """Work that may be done often, but must not cost more than a twentieth of the time."""

    _SHARE = 0.05

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._last = time.monotonic()
        self._cost = 0.5  # s, until it is known

    def __call__(self) -> None:
        """Do it, if enough time has passed since it was done last."""
        now = time.monotonic()
        if self._cost > self._SHARE * (now - self._last):
            return
        self._work()
        self._last = time.monotonic()
        self._cost = self._last - now


class Pace:
    """How long what is left will take, from what was done so far.

    steps: how many there are in all. The first one compiles and reads; where later ones are known, they alone count.
    """

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._marks = [time.monotonic()]

    def step(self) -> str:
        """One more is done: the time left in words."""
        self._marks.append(time.monotonic())
        self._left -= 1
        if self._left <= 0:
            return "done"
        first = 1 if len(self._marks) > 2 else 0
        each = (self._marks[-1] - self._marks[first]) / (len(self._marks) - 1 - first)
        return f"about {in_words(each * self._left)} left"


def in_words(seconds: float) -> str:
    """12 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
