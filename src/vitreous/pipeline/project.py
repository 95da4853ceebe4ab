"""The project directory, laid out as RELION's: numbered jobs, default_pipeline.star, markers of how each job ended."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from vitreous.core.errors import InputError
from vitreous.data.graph import Graph, Process, Status
from vitreous.io.relion_project import read_graph, write_graph
from vitreous.job import Job

PIPELINE = "default_pipeline.star"
RECORD = "job.yaml"
MARKERS: dict[Status, str] = {
    "Succeeded": "RELION_JOB_EXIT_SUCCESS",
    "Failed": "RELION_JOB_EXIT_FAILURE",
    "Aborted": "RELION_JOB_EXIT_ABORTED",
}


class Project:
    """A directory of numbered jobs. Every change to its pipeline is made under a lock and written atomically."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        if self.root.exists() and not self.root.is_dir():
            raise InputError(root, "is a file, not a project directory", "Give a directory")

    @property
    def pipeline(self) -> Path:
        """The project's default_pipeline.star."""
        return self.root / PIPELINE

    def create(self) -> Project:
        """Make the directory and an empty pipeline where there is none."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not self.pipeline.exists():
                with self._locked():
                    write_graph(self.pipeline, Graph())
                (self.root / ".gui_projectdir").touch()  # RELION's interface looks for it
        except OSError as error:
            raise InputError(self.root, f"cannot be written ({error.strerror})", "Choose another directory") from error
        return self

    def graph(self) -> Graph:
        """The project's graph as it stands."""
        return read_graph(self.pipeline) if self.pipeline.exists() else Graph()

    def new_job(self, job: type[Job]) -> Path:
        """A directory for a new job with the next number; the job is entered as running."""
        with self._locked():
            graph = self.graph()
            number = graph.counter
            while any((self.root / job.folder).glob(f"job{number:03d}")):
                number += 1  # a directory that the pipeline does not know: leave it alone
            directory = self.root / job.folder / f"job{number:03d}"
            directory.mkdir(parents=True)
            process = Process(f"{job.folder}/job{number:03d}/", job.relion_type, "Running")
            write_graph(self.pipeline, graph.with_process(process))
        return directory

    def process_name(self, directory: Path) -> str | None:
        """The pipeline's name of a job directory ("Refine3D/job012/"); None where it is not one of the project's."""
        try:
            parts = directory.resolve().relative_to(self.root).parts
        except ValueError:
            return None
        numbered = len(parts) == 2 and parts[1].startswith("job") and parts[1][3:].isdigit()
        return f"{parts[0]}/{parts[1]}/" if numbered else None

    def mark(self, directory: Path, job: type[Job], status: Status, inputs: list[str], nodes: dict[str, str]) -> None:
        """Enter how a job stands: its status, what it read and what it made."""
        name = self.process_name(directory)
        if name is None:
            return
        with self._locked():
            graph = self.graph()
            old = graph.find(name)
            process = replace(old, status=status) if old else Process(name, job.relion_type, status)
            graph = graph.with_process(process).with_inputs(name, inputs)
            if status == "Succeeded":
                graph = graph.with_outputs(name, nodes)
            write_graph(self.pipeline, graph)

    def abort(self, name: str) -> None:
        """Enter a job that nobody works on any more as aborted."""
        with self._locked():
            graph = self.graph()
            process = graph.find(name)
            if process is not None:
                write_graph(self.pipeline, graph.with_process(replace(process, status="Aborted")))

    def records(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The project's jobs that have a readable job.yaml, oldest first: directory and record."""
        for process in self.graph().processes:
            directory = self.root / process.name.rstrip("/")
            record = read_record(directory)
            if record is not None:
                yield directory, record

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.root / ".vitreous.lock", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def read_record(directory: Path) -> dict[str, Any] | None:
    """A job directory's job.yaml; None where there is none that can be read."""
    try:
        record = yaml.safe_load((directory / RECORD).read_text())
    except (OSError, yaml.YAMLError):
        return None
    return record if isinstance(record, dict) else None


def exit_marker(directory: Path) -> Status | None:
    """How the job in a directory ended, by RELION's marker files; None: it did not (running or killed)."""
    return next((status for status, name in MARKERS.items() if (directory / name).exists()), None)


def set_marker(directory: Path, status: Status) -> None:
    """Leave one marker, or none for a running job."""
    for other, name in MARKERS.items():
        if other != status:
            (directory / name).unlink(missing_ok=True)
    if status in MARKERS:
        (directory / MARKERS[status]).touch()


@contextmanager
def job_lock(directory: Path) -> Iterator[None]:
    """Hold a job directory for one process; the system lets go of it when the process dies, however it dies.

    Raises InputError where another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(directory, "another process works on this job", "Wait for it, or stop it first") from None
        yield


def is_locked(directory: Path) -> bool:
    """Whether a live process works on this job."""
    path = directory / ".lock"
    if not path.exists():
        return False
    with open(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
