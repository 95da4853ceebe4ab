"""What is said and done when a rank hangs, stops or dies: small programs of two or three real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitreous.core.errors import LOST
from vitreous.runtime.heartbeat import Sign, Watch

_PROGRAM = """
import logging, sys, time
from pathlib import Path
import torch
from vitreous.core.errors import LOST
from vitreous.runtime import ranks as r
from vitreous.runtime.launch import leave
logging.basicConfig(format="%(message)s")
place, mode = Path(sys.argv[1]), sys.argv[2]
def lost_in_thought():
    (place / "thinking").touch()
    time.sleep(float(sys.argv[3]))
try:
    with r.joined() as ranks:
        ranks.heartbeat.log_to(place / f"rank{ranks.rank:03d}.log")
        ranks.sum_(torch.ones(1))
        if ranks.rank == 1:
            lost_in_thought()
        total = ranks.sum_(torch.ones(1))
        (place / f"total{ranks.rank}").write_text(str(total.item()))
except r.RankLost as error:
    print(error, file=sys.stderr)
    leave(LOST)
leave(0)
"""


def start(place: Path, size: int, thinks: float, **settings: float) -> list[subprocess.Popen[str]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    env = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env |= {f"VITREOUS_{name}": str(value) for name, value in settings.items()}
    words = [sys.executable, "-c", _PROGRAM, str(place), "", str(thinks)]
    processes = [
        subprocess.Popen(words, env={**env, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    deadline = time.monotonic() + 60
    while not (place / "thinking").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return processes


def test_a_line_names_who_is_waited_for_and_its_stack_is_in_its_log(tmp_path: Path) -> None:
    ranks = start(tmp_path, 3, 8, STALL_S=2)
    said = ranks[0].communicate(timeout=60)[1]
    assert [one.wait(30) for one in ranks] == [0, 0, 0]
    (line,) = [one for one in said.splitlines() if ("waiting for rank 1" in one and "2 s of" in one) or "3 s of" in one]
    assert f"rank 1 on {socket.gethostname()} (process {ranks[1].pid}), which has been working since adding up" in line
    assert "rank 2" not in said
    assert "lost_in_thought" in (tmp_path / "rank001.log").read_text()
    assert (tmp_path / "total0").read_text() == "3.0"


def test_a_stopped_process_is_named(tmp_path: Path) -> None:
    ranks = start(tmp_path, 2, 1, STALL_S=4)
    ranks[1].send_signal(signal.SIGSTOP)
    time.sleep(9)
    ranks[1].send_signal(signal.SIGCONT)
    said = ranks[0].communicate(timeout=60)[1]
    assert [one.wait(30) for one in ranks] == [0, 0]
    assert "which has said nothing for" in said


def test_a_rank_that_does_not_come_in_time_ends_the_run(tmp_path: Path) -> None:
    ranks = start(tmp_path, 2, 60, TIMEOUT_S=4)
    said = ranks[0].communicate(timeout=60)[1]
    assert ranks[0].returncode == LOST
    assert "a rank was lost (adding up)" in said
    ranks[1].kill()
    ranks[1].wait()


def test_a_killed_rank_ends_the_others_at_once(tmp_path: Path) -> None:
    ranks = start(tmp_path, 3, 60)
    ranks[1].kill()
    started = time.monotonic()
    assert ranks[0].wait(40) == LOST
    assert ranks[2].wait(40) == LOST
    assert time.monotonic() - started < 30
    ranks[1].wait()


class Said:
    """A meeting at which one sign stands."""

    def __init__(self, sign: Sign | None) -> None:
        self.one = sign

    def has(self, key: str) -> bool:
        return self.one is not None

    def get(self, key: str) -> Sign | None:
        return self.one


@pytest.mark.parametrize("spoke", [True, False])
def test_silence_on_another_machine_is_death_after_a_while(spoke: bool) -> None:
    now = [0.0]
    said = Said(Sign(0, "elsewhere", 1, "working", False, 0.0) if spoke else None)
    watch = Watch(said, silent=10.0, clock=lambda: now[0])  # type: ignore[arg-type]
    assert not watch.is_dead(1)
    now[0] = 9.0
    assert not watch.is_dead(1)
    said.one = Sign(1, "elsewhere", 1, "working", False, 0.0)
    assert not watch.is_dead(1)
    now[0] = 18.0
    assert not watch.is_dead(1)
    now[0] = 20.0
    assert watch.is_dead(1)


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    said = Said(Sign(0, socket.gethostname(), child.pid, "working", False, 0.0))
    assert Watch(said).is_dead(1)  # type: ignore[arg-type]
    said.one = Sign(1, socket.gethostname(), os.getpid(), "working", False, 0.0)
    assert not Watch(said).is_dead(1)  # type: ignore[arg-type]
