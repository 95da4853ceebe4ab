"""Signs of life: each rank tells every few seconds that it lives, where, and what it does; the first one watches."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from vitreous.runtime.meeting import Meeting

BEAT_S = 1.0
SILENT_S = 60.0  # a rank elsewhere that has said nothing for so long is taken for dead


@dataclass(frozen=True)
class Sign:
    """What a rank last said. since: seconds it has been doing that."""

    count: int
    host: str
    pid: int
    doing: str
    since: float


class Heartbeat:
    """Says signs of life from a thread of its own until it is closed."""

    def __init__(self, rank: int, every_s: float = BEAT_S) -> None:
        self._rank, self._every = rank, every_s
        self._doing, self._since = "starting", time.monotonic()
        self._end = threading.Event()
        self._meeting = Meeting()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def tell(self, doing: str) -> None:
        """What this rank does from now on."""
        self._doing, self._since = doing, time.monotonic()

    def close(self) -> None:
        """Say no more."""
        self._end.set()
        self._thread.join(timeout=2 * self._every)

    def _beat(self) -> None:
        count, host, pid = 0, socket.gethostname(), os.getpid()
        while not self._end.is_set():
            sign = Sign(count, host, pid, self._doing, time.monotonic() - self._since)
            try:
                self._meeting.put(f"sign/{self._rank}", sign)
            except RuntimeError:
                return  # the store is gone: the run ends
            count += 1
            self._end.wait(self._every)


class Watch:
    """Who lives, as one rank sees it. silent_s: how long a rank on another machine may say nothing."""

    def __init__(
        self, meeting: Meeting, silent_s: float = SILENT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._meeting, self._silent, self._clock = meeting, silent_s, clock
        self._seen: dict[int, tuple[int, float]] = {}

    def sign(self, rank: int) -> Sign | None:
        """What a rank last said; None before its first word."""
        key = f"sign/{rank}"
        return self._meeting.get(key) if self._meeting.has(key) else None

    def is_dead(self, rank: int) -> bool:
        """Whether a rank is gone: its process on this machine, or no sign of one elsewhere."""
        sign = self.sign(rank)
        count = -1 if sign is None else sign.count
        last, when = self._seen.get(rank, (-2, 0.0))
        if count != last:
            self._seen[rank] = (count, self._clock())
            when = self._clock()
        if sign is not None and sign.host == socket.gethostname():
            return not _runs(sign.pid)
        return self._clock() - when > self._silent


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
