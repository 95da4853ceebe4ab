from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vitreous.runtime.open_queue import OpenQueue

_PROGRAM = """
import json, logging, os, sys, time
from pathlib import Path
from vitreous.runtime import ranks as r
from vitreous.runtime.launch import leave
from vitreous.runtime.open_queue import OpenQueue
from vitreous.runtime.queue import Served
place, pause, n = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
def work(item):
    rank = int(os.environ["RANK"])
    (place / f"began_{item}_{rank}").touch()
    time.sleep(pause)
    return item * item, rank
logging.basicConfig(format="%(message)s")
with r.joined(queued=True) as ranks:
    queue = OpenQueue(work, threads=lambda: 1, ranks=ranks)
    (place / f"here_{ranks.rank}").touch()
    if not ranks.is_first:
        try:
            queue.serve()
        except Served:
            leave(0)
    while len(list(place.glob("here_*"))) < ranks.size:
        time.sleep(0.01)
    out = []
    for item in range(n):
        assert queue.put(item) == item
        out += queue.done(pause / 2)
        if item == 1:
            while queue.on_way:  # ranks hold tickets for items that have not come yet
                out += queue.done(0.1)
            (place / "idle").touch()
            while not (place / "go_on").exists():
                out += queue.done(0.1)
    while queue.on_way:
        out += queue.done(0.1)
    out += queue.close()
    (place / "found.json").write_text(json.dumps(out))
"""


def start(place: Path, size: int, pause: float, n: int) -> list[subprocess.Popen[str]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [sys.executable, "-c", _PROGRAM, str(place), str(pause), str(n)]
    return [
        subprocess.Popen(words, env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]


def until(pattern: str, place: Path) -> None:
    deadline = time.monotonic() + 100
    while not list(place.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check(place: Path, first: subprocess.Popen[str], n: int) -> str:
    said = first.communicate(timeout=120)[1]
    assert first.returncode == 0, said
    found = {number: value[0] for number, value in json.loads((place / "found.json").read_text())}
    assert found == {item: item * item for item in range(n)}, "each once, under its number"
    return said


def test_one_process_takes_what_comes() -> None:
    queue = OpenQueue(lambda item: item + 1, threads=lambda: 2)
    assert queue.done() == []
    assert [queue.put(item) for item in (10, 20)] == [0, 1]
    found = dict(queue.done(5.0))
    while queue.on_way:
        found |= dict(queue.done(5.0))
    assert found == {0: 11, 1: 21}
    assert queue.close() == []


def test_closed_it_finishes_what_is_in_hand_and_begins_no_more() -> None:
    begun = threading.Event()

    def work(item: int) -> int:
        begun.set()
        time.sleep(0.3)
        return item

    queue = OpenQueue(work, threads=lambda: 1)
    for item in range(3):
        queue.put(item)
    assert begun.wait(10)
    assert queue.close() == [(0, 0)]


def test_an_error_comes_out_after_what_was_done_before() -> None:
    queue = OpenQueue(lambda item: 1 // item, threads=lambda: 1)
    queue.put(1)
    queue.put(0)
    found = []
    with pytest.raises(ZeroDivisionError):
        while True:
            found += queue.done(5.0)
    assert found == [(0, 1)]
    queue.close()


def test_all_ranks_take_items_and_leave_when_it_is_closed(tmp_path: Path) -> None:
    ranks = start(tmp_path, 3, 0.3, 12)
    until("idle", tmp_path)
    (tmp_path / "go_on").touch()
    check(tmp_path, ranks[0], 12)
    assert [one.wait(30) for one in ranks[1:]] == [0, 0]
    assert len({one.name.rpartition("_")[2] for one in tmp_path.glob("began_*")}) == 3


@pytest.mark.parametrize("idle", [False, True])
def test_a_killed_rank_loses_neither_what_it_had_nor_what_it_waited_for(tmp_path: Path, idle: bool) -> None:
    """Killed with an item in hand, or with a ticket for one that has not come."""
    ranks = start(tmp_path, 2, 0.6, 8)
    if idle:
        until("idle", tmp_path)
        time.sleep(0.5)
    else:
        (tmp_path / "go_on").touch()
        until("began_*_1", tmp_path)
    ranks[1].send_signal(signal.SIGKILL)
    ranks[1].wait()
    if idle:
        time.sleep(4)  # until the first rank has seen it
    (tmp_path / "go_on").touch()
    said = check(tmp_path, ranks[0], 8)
    assert f"{0 if idle else 1} items in hand are taken up again" in said
