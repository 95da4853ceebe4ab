from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitreous.runtime.ranks import Ranks, start


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 10, 23])
def test_shares_cover_all_items_once(size: int, n: int) -> None:
    shares = [Ranks(rank, size).shard(n) for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_does_nothing_and_has_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = start()
    tensor = torch.arange(3.0)
    assert ranks.sum_(tensor) is tensor
    assert tensor.tolist() == [0, 1, 2]
    assert ranks.gather("x") == ["x"]
    mine, halves = ranks.split(2)
    assert mine.size == 1
    assert list(halves) == [0, 1]


_PROGRAM = """
import json, sys, torch
from vitreous.runtime import ranks as r
from vitreous.runtime.launch import leave
ranks = r.start()
total = ranks.sum_(torch.tensor([float(ranks.rank + 1)], dtype=torch.float64)).item()
turned = ranks.sum_(torch.tensor([1j * (ranks.rank + 1)])).imag.item()
told = ranks.broadcast_(torch.tensor([float(10 + ranks.rank)]), source=1).item()
group, halves = ranks.split(2)
alone = group.sum_(torch.tensor([5.0])).item()
gathered = ranks.gather(list(ranks.shard(5)))
ranks.barrier()
with open(f"{sys.argv[1]}/{ranks.rank}.json", "w") as file:
    json.dump([total, turned, told, list(halves), group.size, alone, gathered], file)
r.stop()
leave(0)
"""


def test_two_processes_over_gloo(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, str(program), str(tmp_path)]
    result = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for rank in range(2):
        total, turned, told, halves, size, alone, gathered = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (total, turned, told) == (3.0, 3.0, 11.0)
        assert (halves, size, alone) == ([rank], 1, 5.0)
        assert gathered == [[0, 1, 2], [3, 4]]
