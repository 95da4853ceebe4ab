"""Whose turn it is at a GPU: one process at a time works on it, and a lock file says which.

Programs that share a GPU without asking die of each other's memory. The lock is `flock` on a file that is named by the
GPU's own number (not its index, which CUDA_VISIBLE_DEVICES changes); it is gone with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
_POLL_S = 0.02
_WORD_AFTER_S = 10.0


def locks_folder() -> Path:
    """Where the locks of this machine's GPUs lie: for all of its users (VITREOUS_LOCKS, else the temporary folder)."""
    return Path(os.environ.get("VITREOUS_LOCKS", Path(tempfile.gettempdir()) / "vitreous-locks"))


@contextmanager
def turn_at(device: torch.device, doing: str) -> Iterator[None]:
    """Wait for this process's turn at a GPU and keep it for the block; nothing on the CPU.

    doing: what the lock says of the holder. Afterwards torch gives back the GPU's memory that it holds in reserve.
    """
    if device.type != "cuda":
        yield
        return
    import torch

    name = f"gpu-{torch.cuda.get_device_properties(device).uuid}"
    with locked(locks_folder() / f"{name}.lock", f"GPU {device.index or 0}", doing):
        try:
            yield
        finally:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()


@contextmanager
def locked(path: Path, what: str, doing: str) -> Iterator[None]:
    """Hold a lock file for the block, and say in it who does. A long wait is told, with the holder's own words."""
    with _opened(path) as stream:
        _wait(stream, path, what)
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "doing": doing, "since": time.time()}
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(holder))
        stream.flush()
        try:
            yield
        finally:
            stream.seek(0)
            stream.truncate()


def holder_of(path: Path) -> str:
    """Who holds a lock, in words; empty where nobody says so."""
    try:
        said = json.loads(path.read_text())
        since = time.strftime("%H:%M:%S", time.localtime(said["since"]))
        return f"process {said['pid']} on {said['host']} ({said['doing']}) since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # another user made it
        path.parent.chmod(0o1777)
    with path.open("a+") as stream:
        with contextlib.suppress(OSError):
            path.chmod(0o666)
        yield stream


def _wait(stream: IO[str], path: Path, what: str) -> None:
    word = time.monotonic() + _WORD_AFTER_S
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > word:
                log.info("waiting for %s, which is held by %s", what, holder_of(path) or "another process")
                word = time.monotonic() + 6 * _WORD_AFTER_S
            time.sleep(_POLL_S)
