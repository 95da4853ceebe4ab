"""What a job leaves about itself: job.yaml, run.log, run.out, run.err, note.txt, metrics.json."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from vitreous import __version__
from vitreous.job import Job, JobParameters, Outputs
from vitreous.runtime.atomic import write_text

VERSIONED = ("torch", "numpy", "numba", "scipy")


def changed_parameters(params: JobParameters) -> dict[str, Any]:
    """The parameters that differ from their defaults: what is worth a line in the log."""
    fields = type(params).model_fields
    values = params.model_dump(mode="json")
    return {
        name: value
        for name, value in values.items()
        if fields[name].is_required() or getattr(params, name) != fields[name].get_default(call_default_factory=True)
    }


def versions() -> dict[str, str]:
    """Versions of what computes: ours, Python's and the numeric libraries'."""
    found = {"vitreous": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe_run(job: type[Job], params: JobParameters, device: str, step: str) -> dict[str, Any]:
    """The contents of job.yaml; `vitreous run job.yaml` runs it again."""
    record: dict[str, Any] = {"job": job.name}
    if step:
        record["step"] = step
    record["parameters"] = params.model_dump(mode="json")
    record["seed"] = params.seed
    record["device"] = device
    record["versions"] = versions()
    record["started"] = datetime.now().astimezone().isoformat(timespec="seconds")
    return record


def write_yaml(path: Path, record: dict[str, Any]) -> None:
    """Write a record, keys in the order given."""
    write_text(path, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))


def append_note(directory: Path, job: type[Job], params: JobParameters, resume: bool) -> None:
    """RELION's note.txt: when and with what command the job was run."""
    now = datetime.now().astimezone().strftime("%a %b %d %H:%M:%S %Y")
    options = " ".join(
        f"--{name.replace('_', '-')} {json.dumps(value)}" for name, value in changed_parameters(params).items()
    )
    with open(directory / "note.txt", "a") as file:
        file.write(f" ++++ {'Continued' if resume else 'Executing new'} job on {now}\n")
        file.write(f" ++++ with the following command(s):\nvitreous {job.name} {options}\n ++++\n")


def write_metrics(directory: Path, outputs: Outputs, seconds: float, peak_rss_gb: float) -> None:
    """metrics.json: the job's figures with units in their names, its time and memory, what it left out."""
    figures = {
        **outputs.metrics,
        "seconds": round(seconds, 2),
        "peak_rss_gb": round(peak_rss_gb, 3),
    }
    content = {
        "metrics": figures,
        "summary": outputs.summary,
        "quarantined": [{"item": one.item, "reason": one.reason} for one in outputs.quarantined],
        "nodes": outputs.nodes,
    }
    write_text(directory / "metrics.json", json.dumps(content, indent=2, default=_plain) + "\n")


def read_metrics(directory: Path) -> dict[str, Any]:
    """A finished job's metrics.json; empty where there is none."""
    try:
        content = json.loads((directory / "metrics.json").read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _plain(value: Any) -> Any:
    """numpy scalars and paths as JSON knows them."""
    return value.item() if hasattr(value, "item") else str(value)


@contextmanager
def job_logs(directory: Path) -> Iterator[None]:
    """Log to run.log (everything, with times), run.out (messages) and run.err (warnings and errors) of a job."""
    root = logging.getLogger()
    handlers: list[logging.Handler] = []
    handler: logging.Handler
    for name, level, form in (
        ("run.log", logging.INFO, "%(asctime)s %(levelname)s %(name)s: %(message)s"),
        ("run.out", logging.INFO, "%(message)s"),
        ("run.err", logging.WARNING, "%(levelname)s: %(message)s"),
    ):
        handler = logging.FileHandler(directory / name, mode="a", encoding="utf-8")
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter(form))
        handlers.append(handler)
        root.addHandler(handler)
    old_level = root.level
    root.setLevel(min(old_level, logging.INFO) if old_level else logging.INFO)
    try:
        yield
    finally:
        root.setLevel(old_level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
