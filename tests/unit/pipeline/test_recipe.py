from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vitreous.core.errors import InputError
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.pipeline import recipe
from vitreous.pipeline.project import Project
from vitreous.pipeline.recipe import Hooks, Road, Step, follow
from vitreous.pipeline.stop import JobFailed

RUNS: list[str] = []
FAULTS: set[str] = set()


class Parameters(JobParameters):
    text: str = parameter("", help="what to write")
    input: str = parameter("", help="file to start from")


class Write(Job):
    name = "write"
    folder = "Write"
    relion_type = "vitreous.write"
    help = "writes its input and its text"
    Parameters = Parameters

    def run(self, params: Parameters, context: Context) -> Outputs:
        RUNS.append(params.text + ("+" if context.resume else ""))
        before = (context.project / params.input).read_text() if params.input else ""
        (context.directory / "out.txt").write_text(before + params.text)
        if params.text in FAULTS:
            raise RuntimeError("broken")
        return Outputs(metrics={"length": len(before) + 1}, summary=f"wrote {params.text}")


@dataclass(frozen=True)
class Words:
    second: str = "b"


def _second(road: Road[Words]) -> dict[str, Any]:
    road.decide("two", "text", road.settings.second, f"the first wrote {road.done['one'].metrics['length']}")
    return {"text": road.settings.second, "input": road.file("one", "out.txt")}


STEPS: tuple[Step[Words], ...] = (
    Step("one", "write", "first", lambda road: {"text": "a"}),
    Step("two", "write", "second", _second),
    Step("three", "write", "third", lambda road: {"text": "c", "input": road.file("two", "out.txt")}),
)
HOW = {"cpu": True, "threads": 1}


@pytest.fixture(autouse=True)
def _jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    RUNS.clear()
    FAULTS.clear()
    monkeypatch.setattr(recipe, "find", lambda name: Write)


def go(root: Path, words: Words | None = None, **how: Any) -> Road[Words]:
    return follow(STEPS, Road(Project(root).create(), words or Words()), {**HOW, **how}, Hooks())


def test_steps_run_in_order_once(tmp_path: Path) -> None:
    road = go(tmp_path)
    assert RUNS == ["a", "b", "c"]
    assert road.path("three", "out.txt").read_text() == "abc"
    assert [one.name for one in road.decisions] == ["text"]
    again = go(tmp_path)
    assert RUNS == ["a", "b", "c"]
    assert again.done == road.done
    assert again.decisions == road.decisions
    assert len(again.project.graph().processes) == 3


def test_another_option_runs_what_depends_on_it_anew(tmp_path: Path) -> None:
    go(tmp_path)
    road = go(tmp_path, Words("x"))
    assert RUNS == ["a", "b", "c", "x", "c"]
    assert road.path("three", "out.txt").read_text() == "axc"
    assert (tmp_path / "Write/job003/out.txt").read_text() == "abc"  # nothing is overwritten
    # Going back finds the first results again.
    assert go(tmp_path).path("three", "out.txt").read_text() == "abc"
    assert len(RUNS) == 5


def test_threads_do_not_make_another_result(tmp_path: Path) -> None:
    go(tmp_path)
    go(tmp_path, threads=2)
    assert RUNS == ["a", "b", "c"]


def test_a_failed_step_is_resumed_in_its_directory(tmp_path: Path) -> None:
    FAULTS.add("b")
    with pytest.raises(JobFailed, match="broken"):
        go(tmp_path)
    FAULTS.clear()
    road = go(tmp_path)
    assert RUNS == ["a", "b", "b+", "c"]
    assert road.done["two"].directory.name == "job002"


def test_a_job_that_died_before_it_was_recorded_is_not_taken(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    orphan = project.new_job(Write)
    road = go(tmp_path)
    assert road.done["one"].directory.name == "job002"
    assert project.graph().find(f"Write/{orphan.name}").status == "Aborted"  # type: ignore[union-attr]


def test_a_step_that_left_nothing_is_said(tmp_path: Path) -> None:
    road = go(tmp_path)
    with pytest.raises(InputError, match="did not leave"):
        road.path("one", "missing.star")
    with pytest.raises(InputError, match="there is no run_it"):
        road.latest("one", "run_it*_data.star")
