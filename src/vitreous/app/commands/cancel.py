"""Stop a job that was submitted to SLURM, or take it out of the queue."""

from __future__ import annotations

from pathlib import Path

import click

from vitreous.core.errors import InputError


@click.command("cancel", help=__doc__)
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
def command(jobs: tuple[str, ...]) -> None:
    """Each JOB is a job directory (Refine3D/job012)."""
    from vitreous.pipeline import slurm
    from vitreous.pipeline.project import Project, set_marker

    project = Project(".")
    for job in jobs:
        directory = (project.root / job).resolve()
        number = slurm.number_of(directory)
        if number is None:
            raise InputError(Path(job), "was not submitted to SLURM", "Give the directory of a job that was.")
        before = slurm.states([number]).get(number)
        if before is None or before.ended:
            raise InputError(Path(job), "is not in the queue any more", "vitreous status says how it ended.")
        slurm.cancel(number)
        if before.state == "PENDING":  # nothing of ours runs that would note it
            set_marker(directory, "Aborted")
            name = project.process_name(directory)
            if name is not None:
                project.abort(name)
        click.echo(f"SLURM job {number} cancelled: {job}")
