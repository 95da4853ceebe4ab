"""The single-particle road as commands run it: what is said on the way, pages after each job, the report at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from vitreous.app.options import ParameterOption, make_parameters, read_values
from vitreous.app.report.job_page import write_job_page
from vitreous.app.report.project_page import write_project_page
from vitreous.pipeline.recipe import Hooks, Road
from vitreous.pipeline.runner import JobRun
from vitreous.pipeline.spa import SpaParameters, run_spa


def spa_options(leave_out: frozenset[str] = frozenset()) -> list[click.Parameter]:
    """Options of the road, from its parameters."""
    return [ParameterOption(name, info) for name, info in SpaParameters.model_fields.items() if name not in leave_out]


def spa_parameters(options: list[click.Parameter], texts: dict[str, Any]) -> SpaParameters:
    """What was typed as the road's parameters. Raises InputError naming the option at fault."""
    params = make_parameters(SpaParameters, read_values(options, texts))
    assert isinstance(params, SpaParameters)
    return params


def hooks(project: Path) -> Hooks:
    """Say each step as it starts; write each job's page."""
    begun = time.monotonic()

    def started(number: int, count: int, title: str, how: str) -> None:
        note = f" ({how})" if how else ""
        click.echo(f"[{number:2d}/{count}] {time.monotonic() - begun:6.0f} s  {title}{note}", err=True)

    def job_done(run: JobRun) -> None:
        write_job_page(run.directory, project)

    return Hooks(started, job_done, lambda directory: write_job_page(directory, project, running=True))


def travel(project: Path, settings: SpaParameters, title: str = "") -> Road[SpaParameters]:
    """Run the road and write the project's report.html."""
    road = run_spa(project, settings, hooks(project.resolve()))
    write_project_page(road.project.root, title=title)
    return road
