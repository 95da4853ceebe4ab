"""A job as a command: options from its parameters, a place in a project, and the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import yaml

from vitreous.app.options import ParameterOption, describe, make_parameters, read_values
from vitreous.core.errors import LEFT_OUT, InputError
from vitreous.job import Entry, Job, JobParameters, find

_RANKS_HELP = (
    "ranks on this machine that share the work: a process each, and one a GPU (torchrun or srun start them on several)"
)
RANKS_OPTION = click.Option(["--ranks"], type=click.IntRange(1), default=1, help=_RANKS_HELP)
_RESTARTS_HELP = "how often the ranks start again by themselves, from the last iteration, after one was killed"
RESTARTS_OPTION = click.Option(["--restarts"], type=click.IntRange(0), default=3, help=_RESTARTS_HELP)
_BLOCKS = (("main", "Options"), ("advanced", "Advanced options"), ("shared", "Running"))


class JobCommand(click.Command):
    """Help in three blocks: what one usually sets, what one rarely sets, how to run."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the blocks; underscores for dashes are mentioned once, not listed."""
        own = [one for one in self.get_params(ctx) if not isinstance(one, ParameterOption)]
        for block, title in _BLOCKS:
            records = [one.get_help_record(ctx) for one in self.get_params(ctx) if _block(one) == block]
            if block == "shared":
                records += [record for one in own if (record := one.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl([record for record in records if record is not None], col_max=34)
        formatter.write_paragraph()
        formatter.write_text("Underscores may stand for dashes: --offset_range is --offset-range.")


def _block(parameter: click.Parameter) -> str:
    return parameter.block if isinstance(parameter, ParameterOption) else ""


def make_command(entry: Entry) -> click.Command:
    """The command of a job (imports the job)."""
    job = find(entry.name)
    own: list[click.Parameter] = [ParameterOption(name, info) for name, info in job.Parameters.model_fields.items()]
    taken = {spelling for option in own for spelling in option.opts}
    own += [
        click.Option(
            [one for one in ("--o", "-o", "--output") if one not in taken] + ["output"],
            metavar="DIR",
            help="job directory, inside the project (default: the next number, e.g. "
            f"{job.folder}/job012; RELION's DIR/run is taken as DIR)",
        ),
        click.Option(["--project", "root"], metavar="DIR", help="project directory  [default: where you are]"),
        click.Option(
            ["--continue", "resume"],
            is_flag=False,
            flag_value="",
            metavar="[DIR]",
            help="go on with the job in --o, in DIR (or a file in it), or with the last one of its kind; "
            "class2d and refine3d: from any run_itNNN_optimiser.star, RELION's too",
        ),
        click.Option(["--dump-yaml", "dump_yaml"], is_flag=True, help="print the parameters as YAML and stop"),
    ]
    if job.shared:
        own += [RANKS_OPTION, RESTARTS_OPTION]

    def run(
        output: str | None,
        root: str | None,
        resume: str | None,
        dump_yaml: bool,
        ranks: int = 1,
        restarts: int = 0,
        **texts: Any,
    ) -> int:
        given = read_values(own, texts)
        if job.shared and not dump_yaml:
            share_out(ranks, running_parameters(given), spared=job.queued, restarts=restarts)
        if dump_yaml:
            click.echo(dump(job, given))
            return 0
        return execute(job, given, output=output, root=root, resume=resume)

    return JobCommand(entry.name, params=own, callback=run, help=job.help, short_help=job.help)


def running_parameters(given: dict[str, Any]) -> JobParameters:
    """How a job is to run, whatever else it was given."""
    return make_parameters(JobParameters, {name: given[name] for name in JobParameters.model_fields if name in given})


def share_out(ranks: int, running: JobParameters, *, spared: bool, restarts: int) -> None:
    """Start this command line as a process a rank and device, and leave with their exit code.

    Nothing where one process is all there is to start, or in one that was started so. spared, restarts: see run_ranks.
    """
    from vitreous.runtime.device import available_cores, available_gpus
    from vitreous.runtime.gpu_map import plan_workers
    from vitreous.runtime.launch import is_rank, run_ranks

    if is_rank():
        return
    threads = running.threads or max(1, available_cores() // ranks)
    available = 0 if running.cpu else available_gpus()
    workers = plan_workers(running.gpu, ranks=ranks, threads=threads, available=available, cpu=running.cpu)
    if len(workers) > 1:
        raise click.exceptions.Exit(
            run_ranks([sys.executable, "-m", "vitreous", *sys.argv[1:]], workers, spared=spared, restarts=restarts)
        )


def dump(job: type[Job], given: dict[str, Any]) -> str:
    """job.yaml for `vitreous run`, with each parameter's help as a comment; required ones without a value are null."""
    lines = [f"job: {job.name}", "parameters:"]
    for name, info in job.Parameters.model_fields.items():
        value = given.get(name, None if info.is_required() else info.get_default(call_default_factory=True))
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
        lines.append(f"  {name}: {text}  # {describe(info)}")
    return "\n".join(lines)


def execute(
    job: type[Job],
    given: dict[str, Any],
    *,
    output: str | None = None,
    root: str | None = None,
    resume: str | None = None,
    where: str = "",
) -> int:
    """Run a job as the command line asks; returns the exit code, raises what the runner raises."""
    from vitreous.app.report.job_page import module_of, write_job_page
    from vitreous.app.report.page import import_drawing
    from vitreous.pipeline.project import Project, read_record
    from vitreous.pipeline.runner import run_job
    from vitreous.runtime.launch import is_first, noted_place

    project = Project(root or _project_of(output))
    if resume and "optimiser" in job.Parameters.model_fields and not _is_last(project.root / resume):
        given, resume = _from_iteration(project, job, resume, given), None
    directory = _directory(project, job, output, resume)
    if (again := noted_place()) is not None:
        directory, resume = again, ""
    if resume is not None and directory is not None:
        given = {**_recorded(job, read_record(directory)), **given}
    if project.root != Path.cwd() and root is None:
        given = {name: _from_here(value) for name, value in given.items()}
    params = make_parameters(job.Parameters, given, where)
    if directory is None:
        project.create()
    run = run_job(
        project,
        job,
        params,
        directory=directory,
        resume=resume is not None,
        on_success=lambda done: write_job_page(done.directory, project.root),
        on_iteration=lambda place: write_job_page(place, project.root, running=True),
        meanwhile=lambda: import_drawing(module_of(job.name)),
    )
    if is_first():
        click.echo(f"{run.outputs.summary or 'done'}\n{run.directory}")
    return LEFT_OUT if run.outputs.quarantined else 0


def _project_of(output: str | None) -> str:
    """Where you are; a job directory given elsewhere is a little project of its own."""
    if output is not None and not (Path.cwd() / output).resolve().is_relative_to(Path.cwd().resolve()):
        return output.removesuffix("/run")
    return "."


def _from_here(value: Any) -> Any:
    """A path as typed (or several), made absolute where it names something from here (the project is elsewhere)."""
    if isinstance(value, list):
        return [_from_here(one) for one in value]
    if isinstance(value, str) and value and ("*" in value or (Path.cwd() / value).exists()) and "/" in f"{value}/":
        return str(Path.cwd() / value)
    return value


def _directory(project: Any, job: type[Job], output: str | None, resume: str | None) -> Path | None:
    if output is not None:
        return (project.root / output.removesuffix("/run")).resolve() if project.root == Path.cwd() else project.root
    if resume is None:
        return None
    if resume:
        place = (project.root / resume).resolve()
        directory = place if place.is_dir() else place.parent
        if not directory.is_dir():
            raise InputError(resume, "there is no such job", "Give the job's directory or a file in it")
        return directory
    found = [directory for directory, record in project.records() if record.get("job") == job.name]
    if not found:
        raise InputError("--continue", f"this project has no {job.name} job yet", "Run it without --continue")
    return Path(found[-1])


def _is_last(place: Path) -> bool:
    """Whether this is no iteration's file, or that of the last iteration of a job of ours, which goes on in place."""
    if not place.name.endswith("_optimiser.star"):
        return True
    newest = max(place.parent.glob("run_it*_optimiser.star"), default=None)
    return (place.parent / "job.yaml").is_file() and place == newest


def _from_iteration(project: Any, job: type[Job], optimiser: str, given: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a new job that goes on from an iteration: as recorded, or as RELION's files tell them."""
    from vitreous.pipeline.project import read_record

    place = project.root / optimiser
    if not place.is_file():
        raise InputError(optimiser, "there is no such file", "Give a run_itNNN_optimiser.star")
    recorded = _recorded(job, read_record(place.parent)) or job.continued(place, project.root)
    return {**recorded, "optimiser": optimiser, **given}


def _recorded(job: type[Job], record: dict[str, Any] | None) -> dict[str, Any]:
    """What an earlier run of this job was given."""
    if record is None:
        return {}
    if record.get("job") != job.name:
        raise InputError("--continue", f"that directory holds a {record.get('job')} job", f"Give a {job.name} job's")
    known: type[JobParameters] = job.Parameters
    parameters = record.get("parameters") or {}
    return {name: value for name, value in parameters.items() if name in known.model_fields}
