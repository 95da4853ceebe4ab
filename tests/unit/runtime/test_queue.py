from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitreous.runtime.queue import shared_out

_PROGRAM = """
import json, logging, os, sys, time
from dataclasses import replace
from pathlib import Path
from vitreous.runtime import ranks as r
from vitreous.runtime.launch import leave
from vitreous.runtime.queue import Served, shared_out
place, pause, threads, bad = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
log = logging.getLogger("vitreous.test")
def work(item):
    rank = int(os.environ["RANK"])
    (place / f"began_{item}_{rank}").touch()
    time.sleep(pause * (3 if rank == 0 else 1))
    if item == bad:
        raise ValueError(f"item {item} is bad")
    if item == 2:
        log.warning("item two")
    return item * item, rank
logging.basicConfig(format="%(message)s")
with r.joined(queued=True) as ranks:
    ranks = replace(ranks, meanwhile=lambda: (place / f"ready_{ranks.rank}").touch(exist_ok=False))
    try:
        found = list(shared_out(range(12), work, threads=threads, ranks=ranks))
    except Served:
        leave(0)
    (place / "found.json").write_text(json.dumps(found))
"""


def start(place: Path, size: int, pause: float, threads: int = 1, bad: int = -1) -> list[subprocess.Popen[str]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [sys.executable, "-c", _PROGRAM, str(place), str(pause), str(threads), str(bad)]
    return [
        subprocess.Popen(words, env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]


def found(place: Path) -> tuple[list[int], list[int]]:
    values = json.loads((place / "found.json").read_text())
    return [one[0] for one in values], [one[1] for one in values]


def wait_for_an_item_of_rank_1(place: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(place.glob("began_*_1")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


SQUARES = [item * item for item in range(12)]


def test_one_process_is_a_pool_of_threads() -> None:
    assert list(shared_out(range(12), lambda item: item * item, threads=3)) == SQUARES
    with pytest.raises(ZeroDivisionError):
        list(shared_out([1, 0], lambda item: 1 // item, threads=1))


@pytest.mark.parametrize(("size", "threads"), [(1, 2), (2, 1), (3, 2)])
def test_results_come_in_order_and_the_quick_rank_does_more(tmp_path: Path, size: int, threads: int) -> None:
    ranks = start(tmp_path, size, 0.1, threads)
    said = ranks[0].communicate(timeout=120)[1]
    assert [one.wait(30) for one in ranks] == [0] * size, said
    results, by = found(tmp_path)
    assert results == SQUARES
    assert said.count("item two") == 1
    assert [one.name for one in tmp_path.glob("ready_*")] == ["ready_0"]
    if size == 2:
        assert by.count(1) > by.count(0) >= 1


def test_a_killed_rank_loses_nothing(tmp_path: Path) -> None:
    ranks = start(tmp_path, 3, 0.5)
    wait_for_an_item_of_rank_1(tmp_path)
    ranks[1].send_signal(signal.SIGKILL)
    ranks[1].wait()
    said = ranks[0].communicate(timeout=120)[1]
    assert ranks[0].returncode == 0
    assert ranks[2].wait(30) == 0
    assert found(tmp_path)[0] == SQUARES
    assert "rank 1 on" in said
    assert "1 items in hand are taken up again" in said


def test_an_error_in_any_rank_is_the_firsts(tmp_path: Path) -> None:
    ranks = start(tmp_path, 2, 0.05, bad=5)
    said = ranks[0].communicate(timeout=120)[1]
    assert ranks[0].returncode == 1
    assert "item 5 is bad" in said
    ranks[1].wait(60)


def test_the_others_end_when_the_first_is_killed(tmp_path: Path) -> None:
    ranks = start(tmp_path, 2, 0.3)
    wait_for_an_item_of_rank_1(tmp_path)
    ranks[0].send_signal(signal.SIGKILL)
    assert ranks[1].wait(60) != 0
    ranks[0].communicate()
