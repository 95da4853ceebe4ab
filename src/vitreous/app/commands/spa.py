"""Take movies all the way to a sharpened map; the same line again goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vitreous.app.job_command import JobCommand
from vitreous.app.road import spa_options, spa_parameters, travel


def _run(project: str, **texts: Any) -> None:
    settings = spa_parameters(command.params, texts)
    road = travel(Path(project), settings)
    click.echo(f"{road.done['postprocess'].summary}\n{road.project.root / 'report.html'}")


command = JobCommand(
    "spa",
    params=[click.Argument(["project"], metavar="PROJECT"), *spa_options()],
    callback=_run,
    help=__doc__,
)
