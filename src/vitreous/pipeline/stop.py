"""How a run ends before its time: a signal, or our own fault. Light to import: the command line starts here."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Stopped(BaseException):
    """A signal asked the program to stop. Like KeyboardInterrupt, no `except Exception` may swallow it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")

    @property
    def exit_code(self) -> int:
        """The shell's code for this signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class JobFailed(Exception):
    """A job failed by our fault; its traceback is in the job's run.log.

    may_go_on: it lost another rank; started again, it goes on from its last iteration.
    """

    def __init__(self, job: str, directory: Path, error: BaseException) -> None:
        self.directory = directory
        self.may_go_on = type(error).__name__ == "RankLost"  # its module would be imported for nothing else
        if self.may_go_on:
            super().__init__(f"{job}: {error} ({directory / 'run.log'}; --continue goes on from the last iteration)")
        else:
            super().__init__(f"{job} failed: {type(error).__name__}: {error} (traceback in {directory / 'run.log'})")


def late_signal() -> Stopped | None:
    """The signal that arrived during a long call into compiled code, which Python handles only afterwards."""
    try:
        time.sleep(0)  # handlers run here at the latest
    except Stopped as stopped:
        return stopped
    return None


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into Stopped, so that what is running closes its files and says so.

    Once asked to stop, a program hears no further SIGTERM: launchers and queues send it several times, and the second
    would interrupt the closing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread alone
        return

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped(number)

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
