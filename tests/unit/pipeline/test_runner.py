from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vitreous.core.errors import InputError
from vitreous.job import Context, Job, JobParameters, Outputs, Quarantined, parameter
from vitreous.pipeline.project import Project, exit_marker
from vitreous.pipeline.runner import run_job
from vitreous.pipeline.stop import JobFailed, Stopped

FAKE = """
import os, signal, time
from vitreous.job import Job, JobParameters, Outputs, parameter
from vitreous.pipeline.project import Project
from vitreous.pipeline.runner import run_job
from vitreous.pipeline.stop import Stopped, stop_on_signals

class Slow(Job):
    name, folder, relion_type, help = "slow", "Slow", "vitreous.slow", "writes items, slowly"
    Parameters = JobParameters

    def run(self, params, context):
        for item in range(4):
            path = context.directory / f"{item}.txt"
            if context.resume and path.exists():
                continue
            path.write_text(f"{os.getpid()}")
            if os.environ.get("HANG") and item == 1:
                (context.directory / "hanging").touch()
                time.sleep(60)
        return Outputs()

import sys
project = Project(sys.argv[1]).create()
known = sorted(project.root.glob("Slow/job*"))
try:
    with stop_on_signals():
        first = known[0] if known else None
        run_job(project, Slow, JobParameters(cpu=True, threads=1), directory=first, resume=bool(known))
except Stopped as error:
    sys.exit(error.exit_code)
"""


class Parameters(JobParameters):
    fault: str = parameter("", help="how to fail")
    input: str = parameter("", help="a file")


class Fake(Job):
    name = "fake"
    folder = "Fake"
    relion_type = "vitreous.fake"
    help = "fails as asked"
    Parameters = Parameters

    def run(self, params: Parameters, context: Context) -> Outputs:
        if params.fault == "input":
            raise InputError("movies/a.tiff", "is truncated", "Copy it again")
        if params.fault == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if params.fault == "ours":
            raise ZeroDivisionError("division by zero")
        if params.fault == "signal":
            raise Stopped(signal.SIGTERM)
        (context.directory / "out.star").write_text("data_\n")
        return Outputs(
            nodes={context.relative(context.directory / "out.star"): "ProcessData.star"},
            metrics={"resolution_A": 3.2},
            quarantined=[Quarantined("bad.tiff", "it is empty")],
            summary="made a file",
        )


def parameters(**values: str) -> Parameters:
    return Parameters(cpu=True, threads=1, **values)


def test_a_job_that_ends_well_leaves_its_record(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    run = run_job(project, Fake, parameters(), step="first")
    assert run.directory == tmp_path.resolve() / "Fake/job001"
    assert exit_marker(run.directory) == "Succeeded"
    record = yaml.safe_load((run.directory / "job.yaml").read_text())
    assert (record["job"], record["step"], record["seed"], record["device"]) == ("fake", "first", 1, "cpu")
    assert "torch" in record["versions"]
    content = json.loads((run.directory / "metrics.json").read_text())
    assert content["metrics"]["resolution_A"] == 3.2
    assert content["metrics"]["peak_rss_gb"] > 0.01
    assert content["quarantined"] == [{"item": "bad.tiff", "reason": "it is empty"}]
    assert "1 left out" in (run.directory / "run.err").read_text()
    assert "made a file" in (run.directory / "run.out").read_text()
    assert "vitreous fake" in (run.directory / "note.txt").read_text()
    assert (run.directory / "job.star").exists()
    assert dict(project.graph().nodes) == {"Fake/job001/out.star": "ProcessData.star"}
    second = run_job(project, Fake, parameters(input="Fake/job001/out.star"))
    assert (("Fake/job001/out.star", "Fake/job002/")) in project.graph().inputs
    assert second.directory.name == "job002"


def test_the_users_fault(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    with pytest.raises(InputError, match="truncated"):
        run_job(project, Fake, parameters(fault="input"))
    directory = tmp_path / "Fake/job001"
    assert exit_marker(directory) == "Failed"
    assert project.graph().find("Fake/job001").status == "Failed"  # type: ignore[union-attr]
    assert "Traceback" not in (directory / "run.log").read_text()


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    with pytest.raises(InputError, match=r"the disk is full\. Make room; --continue goes on"):
        run_job(project, Fake, parameters(fault="disk"))
    assert exit_marker(tmp_path / "Fake/job001") == "Failed"
    assert "Traceback" not in (tmp_path / "Fake/job001/run.log").read_text()


def test_our_fault_keeps_its_traceback(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    with pytest.raises(JobFailed, match="division by zero"):
        run_job(project, Fake, parameters(fault="ours"))
    assert "Traceback" in (tmp_path / "Fake/job001/run.log").read_text()
    assert exit_marker(tmp_path / "Fake/job001") == "Failed"


def test_a_signal_aborts(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    with pytest.raises(Stopped):
        run_job(project, Fake, parameters(fault="signal"))
    assert exit_marker(tmp_path / "Fake/job001") == "Aborted"
    assert project.graph().find("Fake/job001").status == "Aborted"  # type: ignore[union-attr]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_killed_job_is_resumed(tmp_path: Path, number: signal.Signals, code: int) -> None:
    program = tmp_path / "slow.py"
    program.write_text(FAKE)
    command = [sys.executable, str(program), str(tmp_path / "p")]
    process = subprocess.Popen(command, env={**os.environ, "HANG": "1"})
    directory = tmp_path / "p/Slow/job001"
    for _ in range(600):
        if (directory / "hanging").exists():
            break
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    assert exit_marker(directory) == (None if number == signal.SIGKILL else "Aborted")
    before = (directory / "0.txt").read_text()
    subprocess.run(command, check=True, timeout=60)
    assert exit_marker(directory) == "Succeeded"
    assert (directory / "0.txt").read_text() == before  # not done again
    assert (directory / "3.txt").exists()
    assert Project(tmp_path / "p").graph().find("Slow/job001").status == "Succeeded"  # type: ignore[union-attr]
