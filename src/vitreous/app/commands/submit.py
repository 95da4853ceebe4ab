"""Submit a job to SLURM; status follows it, cancel stops it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from vitreous.app.job_command import make_command
from vitreous.app.options import make_parameters, read_values
from vitreous.core.errors import InputError
from vitreous.job import Job, catalogue, find
from vitreous.pipeline import slurm
from vitreous.pipeline.project import Project, set_marker
from vitreous.pipeline.slurm_script import Allocation, batch_script, filled, template_values
from vitreous.runtime.atomic import write_text

_OWN = "--own:"  # marks a job's option whose spelling is also one of submit's


class _SubmitCommand(click.Command):
    """After JOB, an option that both submit and the job have (--template) is the job's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Mark such options, so that they are left alone until the job reads them."""
        place = next((index for index, word in enumerate(args) if word in catalogue()), len(args))
        if place < len(args):
            ours, theirs = _spellings(self), _spellings(make_command(catalogue()[args[place]]))
            both = (ours & theirs) - {"--help"}
            rest = [word.replace("--", _OWN, 1) if word.partition("=")[0] in both else word for word in args[place:]]
            args = [*args[:place], *rest]
        return super().parse_args(ctx, args)


def _spellings(command: click.Command) -> set[str]:
    return {spelling for option in command.params for spelling in option.opts}


@click.command(
    "submit",
    cls=_SubmitCommand,
    help=__doc__,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True},
)
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="nodes")
@click.option("--gpus-per-node", type=click.IntRange(0), default=0, show_default=True, help="GPUs of each node")
@click.option("--ranks-per-node", type=click.IntRange(1), help="processes on each node  [default: one a GPU]")
@click.option("--cpus-per-rank", type=click.IntRange(0), default=0, help="cores of each process (0: SLURM's default)")
@click.option("--time", "limit", default="", metavar="H:MM:SS", help="time limit  [default: the partition's]")
@click.option("--partition", default="", help="partition (queue)")
@click.option("--mem", default="", help="memory of each node, as SLURM writes it: 200G")
@click.option("--sbatch", multiple=True, metavar="OPTION", help="a further option of sbatch: --sbatch=--account=em")
@click.option(
    "--template",
    metavar="FILE",
    help="the site's own script, with XXXcommandXXX where the job is to run (before JOB, if the job has a --template)",
)
@click.option("--requeue", is_flag=True, help="back to the queue at the time limit, and on from there")
@click.option(
    "--warn", type=click.IntRange(1), default=120, show_default=True, help="seconds before the limit to stop at"
)
@click.option("--dry-run", is_flag=True, help="print the script and stop")
@click.argument("job", metavar="JOB")
@click.argument("words", metavar="[OPTIONS OF THE JOB]", nargs=-1, type=click.UNPROCESSED)
def command(
    nodes: int,
    gpus_per_node: int,
    ranks_per_node: int | None,
    cpus_per_rank: int,
    limit: str,
    partition: str,
    mem: str,
    sbatch: tuple[str, ...],
    template: str | None,
    requeue: bool,
    warn: int,
    dry_run: bool,
    job: str,
    words: tuple[str, ...],
) -> None:
    """Make the job's directory with its script, and submit it."""
    words = tuple(word.replace(_OWN, "--", 1) if word.startswith(_OWN) else word for word in words)
    ranks = ranks_per_node or max(1, gpus_per_node)
    wants = Allocation(nodes, gpus_per_node, ranks, cpus_per_rank, limit, partition, mem, requeue, tuple(sbatch), warn)
    wants.check()
    kind = _job(job, wants)
    wants = replace(wants, queued=kind.queued and wants.n_ranks > 1)
    directory = _given_directory(kind, words)
    project = Project(".").create() if not dry_run else Project(".")
    place = directory or (Path(f"{kind.folder}/jobNNN") if dry_run else project.new_job(kind).relative_to(project.root))
    script = _script(kind, [*words, *(() if directory else ("--o", str(place)))], project, place, wants, template)
    if dry_run:
        click.echo(script, nl=False)
        return
    (project.root / place).mkdir(parents=True, exist_ok=True)
    path = project.root / place / "submit.sh"
    write_text(path, script)
    _send(project, kind, place, path)


def _send(project: Project, kind: type[Job], place: Path, path: Path) -> None:
    try:
        number = slurm.submit(path, path.parent)
    except InputError:
        set_marker(path.parent, "Aborted")
        project.mark(path.parent, kind, "Aborted", [], {})
        raise
    project.mark(path.parent, kind, "Scheduled", [], {})
    click.echo(f"SLURM job {number}: {place} (vitreous status; vitreous cancel {place})")


def _job(name: str, wants: Allocation) -> type[Job]:
    if name not in catalogue():
        raise InputError(f"vitreous submit {name}", "there is no such job", f"There are: {', '.join(catalogue())}")
    kind = find(name)
    if wants.n_ranks > 1 and not kind.shared:
        what = f"runs in one process; {wants.n_ranks} were asked for"
        raise InputError(name, what, "Leave --nodes, --gpus-per-node and --ranks-per-node at one.")
    return kind


def _given_directory(kind: type[Job], words: tuple[str, ...]) -> Path | None:
    """--o of the job's own options, once all of them have been found to be in order."""
    entry = catalogue()[kind.name]
    ranked = [word for word in words if word == "--ranks" or word.startswith("--ranks=")]
    if ranked:
        raise InputError("--ranks", "is of one machine", "Say --ranks-per-node (and --nodes).")
    context = make_command(entry).make_context(kind.name, list(words))
    values = dict(context.params)
    output = values.pop("output", None)
    own = [one for one in context.command.params if hasattr(one, "field")]
    make_parameters(kind.Parameters, read_values(own, {k: v for k, v in values.items() if _is_parameter(kind, k)}))
    return Path(str(output).removesuffix("/run")) if output else None


def _is_parameter(kind: type[Job], name: str) -> bool:
    return name in kind.Parameters.model_fields


def _script(
    kind: type[Job], words: list[str], project: Project, place: Path, wants: Allocation, template: str | None
) -> str:
    name = "-".join([kind.name, place.name])
    parts = (name, [kind.name, *words], project.root, str(place), wants, sys.executable)
    if template is None:
        return batch_script(*parts)
    try:
        text = Path(template).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(template, f"cannot be read ({error})", "Give the site's batch script.") from error
    return filled(text, template_values(*parts), Path(template))
