from __future__ import annotations

import logging

import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.runtime import device


def test_the_device_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert device.resolve(cpu=True) == torch.device("cpu")
    assert "CPU (asked for)" in caplog.text


def test_a_gpu_that_is_not_there_is_no_silent_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA GPU"):
        device.resolve("0")


def test_ranks_take_their_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "test")
    assert device.resolve("", rank=5, ranks=6) == torch.device("cuda", 1)
    assert device.resolve("2:3", rank=1, ranks=2) == torch.device("cuda", 3)
    with pytest.raises(InputError, match="GPU 7"):
        device.resolve("7")


def test_cpu_and_gpu_together_are_refused() -> None:
    with pytest.raises(InputError, match="both"):
        device.resolve("0", cpu=True)


def test_threads_are_bounded_by_the_cores() -> None:
    before = torch.get_num_threads()
    try:
        assert device.set_threads(100000) == device.available_cores()
        assert device.set_threads(1) == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("text", "threads"), [("3", 3), ("", 0), ("many", 0)])
def test_threads_of_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert device.threads_of_environment() == threads
