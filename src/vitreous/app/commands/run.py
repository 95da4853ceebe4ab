"""Run a job from a YAML file (made by `vitreous JOB --dump-yaml`, or a job's own job.yaml)."""

from __future__ import annotations

from pathlib import Path

import click
import yaml

from vitreous.app.job_command import execute
from vitreous.core.errors import InputError
from vitreous.job import catalogue, find


@click.command("run", help=__doc__)
@click.argument("file", metavar="JOB.YAML")
@click.option("--o", "-o", "output", metavar="DIR", help="job directory (default: the next number)")
@click.option("--project", "root", metavar="DIR", help="project directory  [default: where you are]")
@click.option("--continue", "resume", is_flag=True, help="go on with the job in --o")
def command(file: str, output: str | None, root: str | None, resume: bool) -> int:
    """Read the file, find its job, run it."""
    path = Path(file)
    try:
        record = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Give a job's YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(path, f"is not YAML ({first})", "vitreous JOB --dump-yaml writes one") from error
    if not isinstance(record, dict) or "job" not in record:
        raise InputError(path, "does not say which job it is for", "Its first line is, e.g., 'job: refine3d'")
    name = str(record["job"])
    if name not in catalogue():
        raise InputError(path, f"there is no job {name!r}", f"There are: {', '.join(catalogue())}")
    parameters = record.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InputError(path, "'parameters' is not a list of names and values", "One 'name: value' a line")
    given = {str(key): value for key, value in parameters.items()}
    return execute(
        find(name), given, output=output, root=root, resume=(output or "") if resume else None, where=str(path)
    )
