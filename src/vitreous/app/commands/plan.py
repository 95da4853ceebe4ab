"""Say which layout of jobs over a cluster ends first and which wastes least."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from vitreous.core.errors import InputError
from vitreous.pipeline.layouts import Layout, Work, advised, ends_first, layouts, wastes_least

_FULL_SEARCH = 20.5e6  # correlations of a micrograph: 1.58 million orientations at 13 defoci


@click.command("plan", help=__doc__)
@click.option("--micrographs", type=click.IntRange(1), required=True, help="how many there are")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="hours a micrograph takes on one GPU")
@click.option("--trial", metavar="JOB", help="take the hours from a short job that ran on one GPU: its directory")
@click.option(
    "--correlations",
    type=click.FloatRange(1),
    default=_FULL_SEARCH,
    show_default="20.5 million",
    help="of a whole search of one micrograph, where the trial is a match-template job with larger steps",
)
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="nodes that can be had")
@click.option("--gpus-per-node", type=click.IntRange(1), default=1, show_default=True, help="GPUs of each")
@click.option("--serial", type=click.FloatRange(0, 1), default=0.0, help="fraction that more GPUs do not speed up")
@click.option("--setup", type=click.FloatRange(0), default=0.0, help="minutes a job spends on each micrograph besides")
@click.option(
    "--urgency",
    type=click.Choice(["first", "balanced", "thrifty"]),
    default="balanced",
    show_default=True,
    help="what to advise: the first to end, the thriftiest, or the thriftiest that ends within 25% of the first",
)
def command(
    micrographs: int,
    hours: float | None,
    trial: str | None,
    correlations: float,
    nodes: int,
    gpus_per_node: int,
    serial: float,
    setup: float,
    urgency: str,
) -> None:
    """Print the table and the advice."""
    if (hours is None) == (trial is None):
        raise InputError("vitreous plan", "needs either --hours or --trial", "Say how long a micrograph takes.")
    each = hours if hours is not None else hours_of_trial(Path(str(trial)), correlations)
    work = Work(micrographs, each, serial, setup / 60)
    found = layouts(work, nodes, gpus_per_node)
    click.echo(f"{micrographs} micrographs of {each:.3g} h on one GPU; {nodes} nodes of {gpus_per_node} GPUs")
    Console(width=120).print(_table(found))
    click.echo(f"ends first: {ends_first(found).name} ({ends_first(found).end:.3g} h)")
    least = wastes_least(found)
    click.echo(f"wastes least: {least.name} ({least.wasted:.3g} GPU h of {least.held:.3g})")
    if not serial and not setup:
        click.echo("(without --serial and --setup, more GPUs are taken to help in full: then none wastes anything)")
    choice = advised(found, urgency)  # type: ignore[arg-type]
    click.echo(
        f"advice ({urgency}): {choice.name}, {choice.jobs} at a time on {choice.gpus} GPUs each: {choice.reason}"
    )


def hours_of_trial(directory: Path, correlations: float) -> float:
    """Hours a micrograph takes on one GPU, from the figures of a job that ran on one.

    Raises InputError for a job without figures, or without any from which this follows.
    """
    try:
        metrics = json.loads((directory / "metrics.json").read_text())["metrics"]
    except (OSError, ValueError, KeyError):
        raise InputError(directory, "holds no finished job (no metrics.json)", "Run a short job first.") from None
    if "correlations_per_s" in metrics:
        return correlations / float(metrics["correlations_per_s"]) / 3600
    if metrics.get("n_micrographs"):
        return float(metrics["seconds"]) / int(metrics["n_micrographs"]) / 3600
    raise InputError(directory, "does not count micrographs", "Give the job of a movie job or match-template.")


def _table(found: list[Layout]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("layout", "jobs", "GPUs each", "ends after", "GPU hours", "wasted", "because"):
        table.add_column(title, justify="left" if title in ("layout", "because") else "right")
    for one in found:
        numbers = (f"{one.end:.3g} h", f"{one.held:.3g}", f"{one.wasted:.3g}")
        table.add_row(one.name, str(one.jobs), str(one.gpus), *numbers, one.reason)
    return table
