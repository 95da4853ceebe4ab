"""Show a project's jobs: how each stands, what it found, how long it took."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from vitreous.core.errors import InputError

if TYPE_CHECKING:
    from vitreous.pipeline.project import Project
    from vitreous.pipeline.slurm import QueueState

_STYLES = {
    "Succeeded": "green",
    "Failed": "red",
    "Aborted": "yellow",
    "Interrupted": "yellow",
    "Running": "cyan",
    "Queued": "blue",
}


@click.command("status", help=__doc__)
@click.argument("project", metavar="PROJECT", default=".")
def command(project: str) -> None:
    """One row a job."""
    from vitreous.pipeline import slurm
    from vitreous.pipeline.project import Project, exit_marker, is_locked
    from vitreous.pipeline.record import read_metrics

    place = Project(project)
    if not place.pipeline.exists():
        raise InputError(project, "is no project: it has no default_pipeline.star", "Give a project directory")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("job", "state", "seconds", "result"):
        table.add_column(title, justify="right" if title == "seconds" else "left", overflow="fold")
    queue = _in_queue(place)
    for process in place.graph().processes:
        directory = place.root / process.name.rstrip("/")
        waiting = queue.get(slurm.number_of(directory) or 0)
        state: str = exit_marker(directory) or process.status
        if waiting is not None and not waiting.ended and state != "Succeeded":
            state = "Queued" if waiting.state == "PENDING" else "Running"
        elif state in ("Running", "Scheduled") and not is_locked(directory):
            state = "Interrupted"  # killed: nobody holds its lock, and it left no marker
        content = read_metrics(directory) if state == "Succeeded" else {}
        seconds = content.get("metrics", {}).get("seconds")
        style = _STYLES.get(state, "")
        table.add_row(
            process.name.rstrip("/"),
            f"[{style}]{state}[/]" if style else state,
            f"{seconds:.0f}" if seconds is not None else "",
            str(content.get("summary", "")) or _of_queue(waiting, state) or _last_words(directory),
        )
    Console(width=None if Console().is_terminal else 160).print(table)


def _in_queue(project: Project) -> dict[int, QueueState]:
    """What SLURM says of the project's jobs that were submitted and have not ended well."""
    from vitreous.pipeline import slurm
    from vitreous.pipeline.project import exit_marker

    directories = [project.root / process.name.rstrip("/") for process in project.graph().processes]
    numbers = [slurm.number_of(one) for one in directories if exit_marker(one) != "Succeeded"]
    return slurm.states([number for number in numbers if number is not None])


def _of_queue(waiting: QueueState | None, state: str) -> str:
    """SLURM's words where they say more than ours."""
    if waiting is None or (waiting.ended and state == "Aborted" and waiting.state == "COMPLETED"):
        return ""
    return f"SLURM job {waiting.number}: {waiting.text}"


def _last_words(directory: Path) -> str:
    """The last line of run.err: why it failed."""
    try:
        lines = (directory / "run.err").read_text().strip().splitlines()
    except OSError:
        return ""
    words = [line for line in lines if line.startswith(("ERROR", "WARNING"))]
    return words[-1] if words else ""
