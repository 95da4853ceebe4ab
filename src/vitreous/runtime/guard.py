"""No hang without a word: a thread says which rank the others wait for, and ends a process whose peers are gone."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from vitreous.core.errors import LOST
from vitreous.runtime.heartbeat import BEAT_S, Heartbeat, Watch, silent_s
from vitreous.runtime.launch import leave
from vitreous.runtime.meeting import Meeting

_STALL_S = 60.0
_BY_ITSELF_S = 15.0  # for a process that has noticed itself to end in its own way
log = logging.getLogger(__name__)


def stall_s() -> float:
    """Seconds that ranks wait for another one before a line says so (VITREOUS_STALL_S)."""
    return float(os.environ.get("VITREOUS_STALL_S", _STALL_S))


class Guard:
    """Watches from a thread until it is closed. The first rank looks at all, the others at their way to the first.

    leave: called with a reason where this process cannot go on; by default it is said and the process ends.
    """

    def __init__(self, rank: int, size: int, heartbeat: Heartbeat, leave: Callable[[str], None] | None = None) -> None:
        self._rank, self._size, self._heartbeat = rank, size, heartbeat
        self._leave = leave or _leave
        self._meeting = Meeting() if rank == 0 else None
        self._next_word = stall_s()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="guard", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._end.set()
        self._thread.join(timeout=5 * BEAT_S)

    def _go_on(self) -> None:
        watch = Watch(self._meeting) if self._meeting is not None else None
        while not self._end.wait(BEAT_S):
            if time.monotonic() - self._heartbeat.last_said > silent_s():
                self._give_up(f"rank {self._rank} has lost the first rank")
            if watch is not None:
                try:
                    self._look(watch)
                except RuntimeError:
                    log.debug("the store is gone")

    def _look(self, watch: Watch) -> None:
        """One look at all other ranks."""
        for rank in range(1, self._size):
            if watch.is_dead(rank) and not watch.has_left(rank):
                sign = watch.sign(rank)
                did = f" while it was {sign.doing}" if sign is not None else ""
                self._give_up(f"{watch.name(rank)} has died{did}")
        signs = {rank: sign for rank in range(self._size) if (sign := watch.sign(rank)) is not None}
        waiting = [sign.since for sign in signs.values() if sign.waits]
        if not waiting or max(waiting) < self._next_word:
            self._next_word = stall_s() if not waiting else self._next_word
            return
        self._next_word *= 2
        for rank, sign in signs.items():
            quiet = watch.silence(rank)
            if quiet > 5 * BEAT_S:
                words = f"which has said nothing for {quiet:.0f} s"
            elif not sign.waits:
                words = f"which has been {sign.doing} for {sign.since:.0f} s"
            else:
                continue
            if self._meeting is not None:
                self._meeting.ticket(f"dump/{rank}")
            log.warning(
                "%.0f s of waiting for %s, %s; its stack is in rank%03d.log",
                max(waiting),
                watch.name(rank),
                words,
                rank,
            )

    def _give_up(self, reason: str) -> None:
        """Say it, leave the process some time to end by itself (its next collective fails), then end it."""
        log.error("%s", reason)
        if not self._end.wait(_BY_ITSELF_S):
            self._leave(reason)


def _leave(reason: str) -> None:
    log.error("%s: this process ends; the run goes on from its last iteration when it is started again", reason)
    leave(LOST)
