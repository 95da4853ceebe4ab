"""A recipe: named steps in a project, each a job whose parameters follow from the steps before it.

What has been done is read back from the project (default_pipeline.star, each job's job.yaml, the markers), so a run
that was killed goes on where it stopped: a step whose job finished with the same parameters is taken as it is, one
that was cut short is resumed in its own directory, the rest is run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from vitreous.core.errors import InputError
from vitreous.job import Job, JobParameters, find
from vitreous.pipeline.project import Project, is_locked, read_record, set_marker
from vitreous.pipeline.record import read_metrics
from vitreous.pipeline.runner import JobRun, is_finished, run_job
from vitreous.runtime.atomic import write_text

log = logging.getLogger(__name__)
Settings = TypeVar("Settings")

# How a job is run, not what it computes: changing these does not make its result another one.
_NOT_SCIENCE = frozenset({"threads", "gpu", "cpu", "max_memory"})
STATE = "spa.json"


@dataclass(frozen=True)
class Decision:
    """Something the recipe decided by itself, and why."""

    step: str
    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class StepResult:
    """A finished step: its job's directory and figures."""

    name: str
    job: str
    directory: Path
    metrics: dict[str, Any]
    summary: str
    quarantined: list[dict[str, str]]

    @property
    def seconds(self) -> float:
        """How long its last run took."""
        return float(self.metrics.get("seconds", 0.0))


@dataclass
class Road(Generic[Settings]):
    """Where a recipe stands: its settings, the steps done so far, the decisions made."""

    project: Project
    settings: Settings
    done: dict[str, StepResult] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)

    def decide(self, step: str, name: str, value: Any, reason: str) -> None:
        """Keep a decision for the log and the report."""
        text = f"{value:g}" if isinstance(value, float) else str(value)
        self.decisions.append(Decision(step, name, text, reason))
        log.info("decided: %s = %s (%s)", name, text, reason)

    def path(self, step: str, name: str) -> Path:
        """A file of a finished step. Raises InputError where the step did not leave it."""
        path = self.done[step].directory / name
        if not path.exists():
            raise InputError(path, f"the step {step!r} did not leave this file", "See the step's run.log")
        return path

    def file(self, step: str, name: str) -> str:
        """The same as a job parameter: relative to the project."""
        return str(self.path(step, name).relative_to(self.project.root))

    def latest(self, step: str, pattern: str) -> str:
        """The last file of a step that fits a pattern (run_it*_data.star), as a job parameter."""
        found = sorted(self.done[step].directory.glob(pattern))
        if not found:
            raise InputError(self.done[step].directory, f"there is no {pattern}", "See the step's run.log")
        return str(found[-1].relative_to(self.project.root))


@dataclass(frozen=True)
class Step(Generic[Settings]):
    """One step: its name in the recipe, its job, what the user is told, and how its parameters follow."""

    name: str
    job: str
    title: str
    parameters: Callable[[Road[Settings]], dict[str, Any]]


@dataclass(frozen=True)
class Hooks:
    """What the caller does along the road. started: (number, of how many, title, resumed or reused)."""

    started: Callable[[int, int, str, str], object] = lambda number, count, title, how: None
    job_done: Callable[[JobRun], object] = lambda run: None
    iteration_done: Callable[[Path], object] = lambda directory: None


def follow(steps: Sequence[Step[Settings]], road: Road[Settings], how: dict[str, Any], hooks: Hooks) -> Road[Settings]:
    """Run the steps in order, skipping what is done.

    how: seed, threads, gpu, cpu, max_memory for every job. Raises what the runner raises.
    """
    _forget_unborn(road.project)
    for number, step in enumerate(steps, 1):
        job = find(step.job)
        params = job.Parameters(**{**how, **step.parameters(road)})
        directory = find_step(road.project, step.name, job, params)
        finished = directory is not None and is_finished(directory)
        hooks.started(number, len(steps), step.title, "done before" if finished else "resumed" if directory else "")
        if directory is None or not finished:
            run = run_job(
                road.project,
                job,
                params,
                directory=directory,
                resume=directory is not None,
                step=step.name,
                on_success=hooks.job_done,
                on_iteration=hooks.iteration_done,
            )
            directory = run.directory
        road.done[step.name] = load_step(step.name, step.job, directory)
        save_state(road)
    return road


def find_step(project: Project, name: str, job: type[Job], params: JobParameters) -> Path | None:
    """The newest job that ran this step with these parameters, finished or not."""
    wanted = _science(params.model_dump(mode="json"))
    for directory, record in reversed(list(project.records())):
        same = record.get("step") == name and record.get("job") == job.name
        if same and _science(record.get("parameters", {})) == wanted:
            return directory
    return None


def load_step(name: str, job: str, directory: Path) -> StepResult:
    """A finished step as its files tell it."""
    content = read_metrics(directory)
    return StepResult(
        name,
        job,
        directory,
        content.get("metrics", {}),
        str(content.get("summary", "")),
        content.get("quarantined", []),
    )


def save_state(road: Road[Any]) -> None:
    """spa.json: steps with their jobs, decisions; for the report and for people (a resumed run does not need it)."""
    root = road.project.root
    content = {
        "steps": [
            {
                "step": one.name,
                "job": one.job,
                "directory": str(one.directory.relative_to(root)),
                "seconds": one.seconds,
                "peak_rss_gb": one.metrics.get("peak_rss_gb"),
                "summary": one.summary,
            }
            for one in road.done.values()
        ],
        "decisions": [asdict(one) for one in road.decisions],
    }
    write_text(root / STATE, json.dumps(content, indent=2) + "\n")


def _science(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in _NOT_SCIENCE}


def _forget_unborn(project: Project) -> None:
    """Jobs that were killed before they wrote down what they were: nobody can resume them."""
    for process in project.graph().processes:
        directory = project.root / process.name.rstrip("/")
        if process.status == "Running" and directory.is_dir() and read_record(directory) is None:
            if is_locked(directory):
                continue
            set_marker(directory, "Aborted")
            project.abort(process.name)
