"""Start a program as several ranks on this machine: the same variables as torchrun's, and a plain exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

_GRACE_S = 30.0  # for the others to write what they have when one has ended badly
_SAME_FAULT_S = 2.0  # ranks that see the same fault end about together: then the first one's words are enough


@dataclass(frozen=True)
class _Started:
    """A rank's process, and what it wrote to stderr (the first rank's goes to the terminal)."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes] | None


def run_ranks(command: Sequence[str], size: int) -> int:
    """Run `size` copies of a command that find each other through torch.distributed; the exit code.

    The first rank talks to the terminal. Where one rank fails the others are told to stop (SIGTERM, then SIGKILL),
    and its exit code is the run's; the last line it wrote is shown if the first rank has not failed as well.
    """
    shared = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    started: list[_Started] = []
    try:
        for rank in range(size):
            env = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            started.append(_start(command, env, talks=rank == 0))
        return _wait(started)
    finally:
        _end(started)


def is_rank() -> bool:
    """Whether this process was started as one of several ranks (by `run_ranks`, torchrun or srun)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the first rank, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def local_ranks() -> int:
    """How many ranks share this machine."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _start(command: Sequence[str], env: dict[str, str], *, talks: bool) -> _Started:
    if talks:
        return _Started(subprocess.Popen(command, env=env), None)
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in _end)
    return _Started(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=errors), errors)


def _wait(started: list[_Started]) -> int:
    """Until all are done (0) or one has failed (its code)."""
    while True:
        codes = [one.process.poll() for one in started]
        if any(codes):  # neither running nor done well
            return _failure(started, next(rank for rank, code in enumerate(codes) if code))
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.05)


def _failure(started: list[_Started], rank: int) -> int:
    """The exit code of a run in which a rank has failed, and that rank's last words where nobody else says them."""
    first = started[0].process
    deadline = time.monotonic() + _SAME_FAULT_S
    while first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    code = first.returncode or started[rank].process.returncode
    errors = started[rank].errors
    if not first.returncode and errors is not None:
        errors.seek(0)
        words = errors.read().decode(errors="replace").strip().splitlines()
        sys.stderr.write(f"error: rank {rank}: {words[-1] if words else f'ended with code {code}'}\n")
    return 128 - code if code < 0 else code


def _end(started: list[_Started]) -> None:
    alive = [one.process for one in started if one.process.poll() is None]
    for process in alive:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    for process in alive:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for one in started:
        if one.errors is not None:
            one.errors.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
