"""Signs of life: each rank tells every second that it lives, where, and what it does."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from vitreous.runtime.meeting import Meeting

BEAT_S = 1.0
_SILENT_S = 60.0


def silent_s() -> float:
    """Seconds after which a rank on another machine that says nothing is taken for dead (VITREOUS_SILENT_S)."""
    return float(os.environ.get("VITREOUS_SILENT_S", _SILENT_S))


@dataclass(frozen=True)
class Sign:
    """What a rank last said. waits: for other ranks; since: seconds it has been doing that."""

    count: int
    host: str
    pid: int
    doing: str
    waits: bool
    since: float

    @property
    def place(self) -> str:
        """Where its process is, in words."""
        return f"on {self.host} (process {self.pid})"


class Heartbeat:
    """Says signs of life from a thread of its own until it is closed; writes this rank's stack when it is asked to.

    last_said: time.monotonic() when a sign last went through. waited: seconds spent with or waiting for other ranks.
    """

    def __init__(self, rank: int, every_s: float = BEAT_S) -> None:
        self._rank, self._every = rank, every_s
        self._doing, self._waits, self._since = "starting", False, time.monotonic()
        self.last_said, self.waited = time.monotonic(), 0.0
        self._log: IO[str] | None = None
        self._dumps = 0
        self._end = threading.Event()
        self._meeting = Meeting()
        self._beat(0)  # whoever dies from now on is known to have been here
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)
        self._thread.start()

    def tell(self, doing: str, *, waits: bool = False) -> None:
        """What this rank does from now on."""
        now = time.monotonic()
        self.waited += now - self._since if self._waits else 0.0
        self._doing, self._waits, self._since = doing, waits, now

    def tell_leaving(self) -> None:
        """This rank has done its part: that its process ends is no death."""
        with contextlib.suppress(RuntimeError):  # the first rank, which keeps the store, may have left before
            self._meeting.put(f"left/{self._rank}", True)

    def log_to(self, path: Path) -> None:
        """Where stacks go: those that are asked for, and that of a crash."""
        self._log = path.open("a")
        faulthandler.enable(self._log)

    def close(self) -> None:
        """Say no more."""
        self._end.set()
        self._thread.join(timeout=2 * self._every)
        if self._log is not None:
            faulthandler.enable()
            self._log.close()
            self._log = None

    def _go_on(self) -> None:
        count = 0
        while not self._end.wait(self._every):
            count += 1
            try:
                self._beat(count)
                self._dump_if_asked()
            except RuntimeError:
                return  # the store is gone: the guard sees that nothing goes through any more

    def _beat(self, count: int) -> None:
        since = time.monotonic() - self._since
        sign = Sign(count, socket.gethostname(), os.getpid(), self._doing, self._waits, since)
        self._meeting.put(f"sign/{self._rank}", sign)
        self.last_said = time.monotonic()

    def _dump_if_asked(self) -> None:
        asked = self._meeting.ticket(f"dump/{self._rank}", peek=True)
        if asked > self._dumps and self._log is not None:
            self._dumps = asked
            self._log.write(
                f"{time.strftime('%F %T')} rank {self._rank}, {self._doing}: all threads, last call first\n"
            )
            self._log.flush()
            faulthandler.dump_traceback(self._log)


class Watch:
    """Who lives, as one rank sees it. silent: seconds that a rank on another machine may say nothing."""

    def __init__(
        self, meeting: Meeting, silent: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._meeting, self._clock = meeting, clock
        self._silent = silent_s() if silent is None else silent
        self._seen: dict[int, tuple[int, float]] = {}

    def sign(self, rank: int) -> Sign | None:
        """What a rank last said; None before its first word."""
        key = f"sign/{rank}"
        sign = self._meeting.get(key) if self._meeting.has(key) else None
        count = -1 if sign is None else sign.count
        if self._seen.get(rank, (-2, 0.0))[0] != count:
            self._seen[rank] = (count, self._clock())
        return sign

    def silence(self, rank: int) -> float:
        """Seconds since a rank said something new (since it was first asked about, before its first word)."""
        self.sign(rank)
        return self._clock() - self._seen[rank][1]

    def has_left(self, rank: int) -> bool:
        """Whether a rank has done its part and gone."""
        return self._meeting.has(f"left/{rank}")

    def is_dead(self, rank: int) -> bool:
        """Whether a rank is gone: its process on this machine, or no sign of one elsewhere."""
        sign = self.sign(rank)
        if sign is not None and sign.host == socket.gethostname():
            return not _runs(sign.pid)
        return self.silence(rank) > self._silent

    def name(self, rank: int) -> str:
        """A rank with its host and process."""
        sign = self.sign(rank)
        return f"rank {rank}" if sign is None else f"rank {rank} {sign.place}"


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
