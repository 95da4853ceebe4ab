from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vitreous.runtime import launch
from vitreous.runtime.gpu_map import Worker

_TELL = """
import json, os, sys
from vitreous.runtime.launch import placement
own = placement("asked", 7)
told = [own.gpu, own.threads, own.sharing, "VITREOUS_SHARED_GPU" in os.environ]
open(f"{sys.argv[1]}/{os.environ['RANK']}.json", "w").write(json.dumps(told))
"""


def test_each_process_learns_its_device(tmp_path: Path) -> None:
    workers = [Worker(0, 2, 3), Worker(1, 2, 3), Worker(2, 1, 2)]
    assert launch.run_ranks([sys.executable, "-c", _TELL, str(tmp_path)], workers) == 0
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert told == [["2", 3, 2, True], ["2", 3, 2, True], ["1", 2, 1, True]]


def test_without_a_launcher_it_is_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITREOUS_PLACE", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert launch.placement("0:1", 3) == launch.Placement("0:1", 3, 2)


def test_a_map_is_of_one_machine_unless_it_names_more_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert launch.place_in_map(4) == (1, 4)
    assert launch.place_in_map(8) == (5, 8)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("n1", "n1"), ("n[01-04,7],m3", "n01"), ("n[3,5]", "n3"), ("m3,n[1-2]", "m3"), ("a-b[10-12]", "a-b10")],
)
def test_first_host_of_slurms_list(hosts: str, first: str) -> None:
    assert launch.first_host(hosts) == first


def test_ranks_by_srun_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    step = {"STEP_ID": "0", "STEP_NUM_TASKS": "7", "PROCID": "6", "LOCALID": "0", "NODEID": "3", "JOB_ID": "12"}
    step |= {"STEP_TASKS_PER_NODE": "2(x3),1", "STEP_NODELIST": "n[1-4]"}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    launch.adopt_srun()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    assert [launch.os.environ[name] for name in names] == ["6", "7", "0", "1", "n1"]
