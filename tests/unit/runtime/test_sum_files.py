"""Sums through files: what the network gives, the same bits on all ranks, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.core.errors import InputError
from vitreous.runtime.ranks import Ranks
from vitreous.runtime.sum_files import SumFiles, clean


def summed(folder: Path, tensors: list[torch.Tensor], times: int = 1) -> None:
    """The sum in place, by a thread for each rank."""
    barrier = Barrier(len(tensors))
    ends = [SumFiles(folder, rank, len(tensors)) for rank in range(len(tensors))]

    def add(rank: int) -> None:
        for _ in range(times):
            ends[rank].sum_(tensors[rank], lambda: barrier.wait(20) and None)

    threads = [Thread(target=add, args=(rank,)) for rank in range(len(tensors))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 5), n=st.integers(1, 40))
def test_the_sum_of_all_in_the_order_of_ranks(
    dtype: torch.dtype, size: int, n: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tensors = [torch.randn(n, 3, dtype=dtype) for _ in range(size)]
    expected = torch.zeros(n, 3, dtype=dtype)
    for one in tensors:
        expected += one
    summed(tmp_path_factory.mktemp("sums"), tensors)
    for one in tensors:
        torch.testing.assert_close(one, expected, rtol=0, atol=0)


def test_files_of_earlier_sums_go(tmp_path: Path) -> None:
    summed(tmp_path, [torch.ones(10), torch.ones(10)], times=5)
    assert {path.name[:6] for path in tmp_path.iterdir()} == {"000004"}
    clean(tmp_path)
    assert not tmp_path.exists()


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be kept there"):
        SumFiles(tmp_path / "file" / "sums", 0, 2).sum_(torch.ones(2), lambda: None)


def test_one_process_needs_no_files(tmp_path: Path) -> None:
    with Ranks().adding_through(tmp_path / "sums") as ranks:
        assert ranks.files is None
    assert not (tmp_path / "sums").exists()


_PROGRAM = """
import json, sys, torch
from pathlib import Path
from vitreous.runtime import ranks as r
from vitreous.runtime.launch import leave
ranks, folder = r.start(), Path(sys.argv[1]) / "sums"
torch.manual_seed(ranks.rank)
mine = torch.randn(33, 77)
network = ranks.sum_(mine.clone())
with ranks.adding_through(folder) as through:
    files = through.sum_(mine.clone())
    small = through.sum_(torch.ones(3))
    seen = [path.name for path in folder.rglob("*.part")]
(Path(sys.argv[1]) / f"{ranks.rank}.json").write_text(json.dumps([files.tolist(), network.tolist(), small.tolist()]))
ranks.barrier()
assert seen and not folder.exists()
r.stop()
leave(0)
"""


def test_two_processes_agree_with_the_network(tmp_path: Path) -> None:
    stale = tmp_path / "sums" / "killed"
    stale.mkdir(parents=True)
    (stale / "000000_rank000.part").write_bytes(b"\1" * 64)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    done = subprocess.run([*launch, str(program), str(tmp_path)], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (one, network, small), (two, _, _) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == two
    assert small == [2.0, 2.0, 2.0]
    np.testing.assert_allclose(one, network, rtol=0, atol=1e-6)
