from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitreous.runtime import memory


def test_a_plan_stays_within_its_budget_and_uses_it() -> None:
    n = memory.plan(100.0, fixed=250.0, budget=1000.0)
    assert 250 + n * 100 <= 1000 < 250 + (n + 1) * 100
    assert memory.plan(100.0, fixed=250.0, budget=1000.0, most=3) == 3
    assert memory.plan(1e12, budget=10.0) == 1


def test_container_limit_counts_cache_as_free(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 300\n")
    assert memory.cgroup_free(tmp_path) == 400


def test_no_container_limit(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert memory.cgroup_free(tmp_path) is None


def test_more_than_is_free_is_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device=None: 10_000_000_000)
    assert memory.budget(0.0) == 8_000_000_000
    assert memory.budget(4.0) == 4_000_000_000
    assert memory.budget(40.0) == 7_000_000_000


_FAULTS = """
import resource, sys, threading
import numpy as np
from vitreous.runtime.memory import keep_freed_memory

if not keep_freed_memory():
    sys.exit("no glibc")


def work():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(12_500_000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


THREAD = {in_thread}
if THREAD:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("in_thread", [False, True])
def test_what_is_freed_is_used_again(in_thread: bool) -> None:
    script = _FAULTS.format(in_thread=in_thread)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, *others = (int(line) for line in found.stdout.split())
    assert first >= 40  # 100 MB are 48 pages where pages are large, else 24,000
    assert 10 * max(others) < first


def test_batches_are_halved_when_memory_runs_out() -> None:
    done: list[int] = []

    def work(start: int, stop: int) -> None:
        if stop - start > 3:
            raise MemoryError
        done.extend(range(start, stop))

    assert memory.in_batches(20, 16, work) == 2
    assert done == list(range(20))


def test_another_error_is_not_swallowed() -> None:
    def work(start: int, stop: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        memory.in_batches(4, 2, work)


def test_one_item_that_does_not_fit_is_an_error() -> None:
    def work(start: int, stop: int) -> None:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        memory.in_batches(4, 4, work)


def test_batches_cover_everything_once() -> None:
    parts = list(memory.batches(10, 4))
    assert parts == [(0, 4), (4, 8), (8, 10)]


def test_peak_memory_is_of_the_right_order() -> None:
    assert 10_000_000 < memory.peak_rss() < 1_000_000_000_000


def test_batches_are_planned_in_steps_so_that_results_do_not_follow_what_is_free() -> None:
    assert memory.batch_memory(int(19e9)) == memory.batch_memory(int(4e9)) == 1 << 30
    for budget in (int(3e9), int(1e9), int(1e8)):
        size = memory.batch_memory(budget)
        assert size & (size - 1) == 0
        assert budget / 6 < size <= budget / 3


@pytest.mark.parametrize(
    ("kept", "planned"), [(0.0, 0.8 * 10e9), (2000.0, 0.8 * 8e9), (10_000.0, 0.8 * 7e9), (50_000.0, 0.8 * 7e9)]
)
def test_what_is_left_free_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kept: float, planned: float
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10_000_000_000)
    assert memory.budget(device=torch.device("cuda", 0), free_gpu_mb=kept) == int(planned)
    assert ("keeping 30%" in caplog.text) == (kept >= 10_000)
    assert memory.budget(device=torch.device("cpu"), free_gpu_mb=kept) == int(0.8 * 10e9)  # of a GPU alone
