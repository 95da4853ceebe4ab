from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from vitreous.runtime import turn
from vitreous.runtime.turn import holder_of, locked, turn_at

HOLDER = """
import sys, time
from pathlib import Path
from vitreous.runtime.turn import locked
with locked(Path(sys.argv[1]), "GPU 0", "another job"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "locks/gpu.lock", [], []

    def work() -> None:
        for _ in range(10):
            with locked(path, "GPU 0", "a test"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert max(most) == 1
    assert len(most) == 40
    assert holder_of(path) == ""


def test_the_lock_says_who_holds_it_and_ends_with_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "_WORD_AFTER_S", 0.05)
    caplog.set_level(logging.INFO)
    path = tmp_path / "gpu.lock"
    environment = {**os.environ, "PYTHONPATH": str(Path(turn.__file__).parents[2])}
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, env=environment)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    assert f"process {other.pid}" in holder_of(path)
    assert "another job" in holder_of(path)
    threading.Timer(0.3, other.kill).start()
    with locked(path, "GPU 0", "this test"):
        assert f"process {os.getpid()}" in holder_of(path)
    other.wait()
    assert f"waiting for GPU 0, which is held by process {other.pid}" in caplog.text


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="within"), locked(tmp_path / "a.lock", "GPU 0", "a test"):
        raise ValueError("within")
    with locked(tmp_path / "a.lock", "GPU 0", "a test"):
        pass


def test_the_cpu_needs_no_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_LOCKS", str(tmp_path / "locks"))
    with turn_at(torch.device("cpu"), "a test"):
        assert not (tmp_path / "locks").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_named_by_its_own_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_LOCKS", str(tmp_path))
    with turn_at(torch.device("cuda", 0), "a test"):
        path = next(tmp_path.glob("gpu-*.lock"))
        assert "a test" in holder_of(path)
