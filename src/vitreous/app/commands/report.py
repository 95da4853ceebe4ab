"""Write a project's report.html anew from what its jobs left."""

from __future__ import annotations

from pathlib import Path

import click

from vitreous.core.errors import InputError


@click.command("report", help=__doc__)
@click.argument("project", metavar="PROJECT", default=".")
@click.option("--title", default="", help="title of the page (default: the directory's name)")
def command(project: str, title: str) -> None:
    """Find the jobs, draw, write."""
    from vitreous.app.report.project_page import write_project_page

    root = Path(project)
    if not root.is_dir():
        raise InputError(project, "is no directory", "Give a project directory")
    click.echo(write_project_page(root.resolve(), title=title))
