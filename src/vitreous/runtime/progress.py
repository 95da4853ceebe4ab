"""Progress that a person sees on a terminal and a log file keeps as lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
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
