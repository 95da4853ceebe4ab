"""Four hosts on one machine: namespaces with names of their own, joined by a bridge; real sockets and cuts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitreous.core.errors import LOST

N = 4
BRIDGE = "vitreous0"
_PROGRAM = """
import logging, sys, time
from pathlib import Path
import torch
from vitreous.core.errors import LOST
from vitreous.runtime import ranks as r
from vitreous.runtime.launch import leave
logging.basicConfig(format="%(message)s")
place, rounds = Path(sys.argv[1]), int(sys.argv[2])
try:
    with r.joined() as ranks:
        for _ in range(rounds):
            total = ranks.sum_(torch.full((1000,), float(ranks.rank + 1)))
            (place / f"total{ranks.rank}").write_text(str(total[0].item()))
            time.sleep(0.1)
except r.RankLost as error:
    print(error, file=sys.stderr)
    leave(LOST)
leave(0)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Names of network namespaces with the addresses 10.87.5.1 to 4."""
    names = [f"vitreous_h{number}" for number in range(N)]
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr!r}")
    try:
        ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            ip("link", "add", f"vit{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"vit{number}", "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"10.87.5.{number + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for number, name in enumerate(names):
            subprocess.run(["ip", "link", "del", f"vit{number}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def start(hosts: list[str], place: Path, rounds: int) -> list[subprocess.Popen[str]]:
    shared = {"WORLD_SIZE": str(N), "MASTER_ADDR": "10.87.5.1", "MASTER_PORT": "29517", "GLOO_SOCKET_IFNAME": "eth0"}
    shared |= {"VITREOUS_SILENT_S": "6", "VITREOUS_TIMEOUT_S": "300"}
    (place / "program.py").write_text(_PROGRAM)
    ranks = []
    for rank, host in enumerate(hosts):
        name = f"hostname node{rank}; exec {sys.executable} {place / 'program.py'} {place} {rounds}"
        words = ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", name]
        env = {**os.environ, **shared, "RANK": str(rank)}
        ranks.append(subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True))
    return ranks


def test_four_ranks_over_real_sockets(hosts: list[str], tmp_path: Path) -> None:
    ranks = start(hosts, tmp_path, 3)
    said = [one.communicate(timeout=120)[1] for one in ranks]
    assert [one.returncode for one in ranks] == [0] * N, said
    assert [(tmp_path / f"total{rank}").read_text() for rank in range(N)] == ["10.0"] * N


def test_a_host_that_is_cut_off_ends_the_run_with_a_word(hosts: list[str], tmp_path: Path) -> None:
    ranks = start(hosts, tmp_path, 10_000)
    deadline = time.monotonic() + 120
    while not (tmp_path / "total3").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ip("link", "set", "vit3", "down")
    said = [one.communicate(timeout=120)[1] for one in ranks]
    assert [one.returncode for one in ranks] == [LOST] * N, said
    assert "rank 3 on node3 (process" in said[0]
    assert "has died while it was" in said[0]
    assert "rank 3 has lost the first rank" in said[3]
