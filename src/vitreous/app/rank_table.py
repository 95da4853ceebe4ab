"""What `vitreous doctor --plan` prints: which process of a job would work on which device, with how many threads."""

from __future__ import annotations

import shlex
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from vitreous.app.job_command import RANKS_OPTION
from vitreous.app.options import ParameterOption, make_parameters, read_values
from vitreous.core.errors import InputError
from vitreous.job import JobParameters
from vitreous.runtime.device import available_cores, available_gpus
from vitreous.runtime.gpu_map import Worker, parse_gpu_map, plan_workers


def print_plan(options: str, devices: int | None) -> None:
    """The table of processes for a job's options as typed. devices: of the machine that is meant (None: this one).

    Raises InputError for options that the job would refuse.
    """
    ranks, params = read_plan(options)
    cores, here = available_cores(), available_gpus()
    named = max((number for part in parse_gpu_map(params.gpu) for number in part), default=-1) + 1
    available = devices if devices is not None else max(here, named)
    threads = params.threads or max(1, cores // ranks)
    workers = plan_workers(params.gpu, ranks=ranks, threads=threads, available=available, cpu=params.cpu)
    Console(width=100).print(_table(workers))
    if devices is None and named > here:
        click.echo(
            f"This machine has {here or 'no'} CUDA GPU{'s' * (here > 1)}: a job would refuse --gpu {params.gpu}."
        )
    wanted = sum(one.threads for one in workers)
    if devices is None and wanted > cores:
        click.echo(f"{wanted} threads in all are more than the {cores} cores of this machine.")


def read_plan(options: str) -> tuple[int, JobParameters]:
    """--ranks, and --gpu, --j, --cpu and the like, from a line of options; others of a job are passed over."""
    own = [ParameterOption(name, info) for name, info in JobParameters.model_fields.items()]
    parser = click.Command(
        "--plan",
        params=[*own, RANKS_OPTION],
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    try:
        values: dict[str, Any] = parser.make_context("--plan", shlex.split(options)).params
    except (click.ClickException, ValueError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        raise InputError("--plan", message, "Give a job's options in quotes: '--ranks 3 --j 3 --gpu 0:1'") from error
    ranks = int(values.pop("ranks"))
    return ranks, make_parameters(JobParameters, read_values(own, values))


def _table(workers: list[Worker]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("process", "rank", "device", "threads", "shares the device with"):
        table.add_column(title, justify="left" if title == "device" or title.startswith("shares") else "right")
    for number, one in enumerate(workers):
        others = [str(n) for n, other in enumerate(workers) if other.device == one.device and n != number]
        device = "CPU" if one.device is None else f"GPU {one.device}"
        shares = f"process {', '.join(others)}" if others and one.device is not None else ""
        table.add_row(str(number), str(one.rank), device, str(one.threads), shares)
    return table
