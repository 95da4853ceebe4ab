"""What a program costs: wall time, CPU time and memory of one child process and all that it started."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_LOOK_S = 0.1


@dataclass(frozen=True)
class Cost:
    """wall_s; cpu_s (user and system, children included); peak_rss_gb of the largest single process."""

    wall_s: float
    cpu_s: float
    peak_rss_gb: float


def side_by_side(ours: Cost, theirs: Cost | None) -> dict[str, float]:
    """Costs and their ratios under the names of benchmarks/results/refinement.json."""
    out = {"ours_s": ours.wall_s, "ours_cpu_s": ours.cpu_s, "peak_rss_gb": ours.peak_rss_gb}
    if theirs is not None:
        out |= {"relion_s": theirs.wall_s, "relion_cpu_s": theirs.cpu_s}
        out |= {"ratio": theirs.wall_s / ours.wall_s, "cpu_ratio": theirs.cpu_s / ours.cpu_s}
    return out


def measured(command: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end, its output going to `log`. Raises RuntimeError with the log's end if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("w") as out:
        child = subprocess.Popen(
            command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
        peak = _Peak(child.pid)
        # wait4, not wait: the usage of this child and no other, with what it has waited for itself
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    if child.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}:\n{tail}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak.stop() / 1e9)


class _Peak:
    """The largest resident set of a process or any of its children, looked at ten times a second.

    Not ru_maxrss: a child's counts what its parent was before it became another program.
    """

    def __init__(self, pid: int) -> None:
        self._most, self._pid, self._ended = 0, pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Bytes."""
        self._ended.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            try:
                parent = psutil.Process(self._pid)
                for process in (parent, *parent.children(recursive=True)):
                    self._most = max(self._most, process.memory_info().rss)
            except psutil.Error:
                continue
