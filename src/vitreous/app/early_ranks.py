"""Ranks are started before the job is imported: that takes seconds, in which they can do the same."""

from __future__ import annotations

from collections.abc import Sequence

import click

from vitreous.app.job_command import RANKS_OPTION, RESTARTS_OPTION, running_parameters, share_out
from vitreous.app.options import ParameterOption, read_values
from vitreous.core.errors import InputError
from vitreous.job import JobParameters, catalogue
from vitreous.runtime.launch import is_rank

_NO_RUN = {"--help", "-h", "--dump-yaml", "--dump_yaml"}


def start_early(words: Sequence[str]) -> None:
    """Start the ranks of `JOB ... --ranks N`, and leave with their exit code (click's Exit).

    Returns where the line does not plainly ask for several ranks, or is wrong: then the job itself is asked.
    """
    entry = catalogue().get(words[0].replace("_", "-")) if words else None
    if entry is None or not entry.shared or is_rank() or _NO_RUN.intersection(words):
        return
    options = [ParameterOption(name, info) for name, info in JobParameters.model_fields.items()]
    rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True}
    parser = click.Command("running", params=[*options, RANKS_OPTION, RESTARTS_OPTION, rest], context_settings=settings)
    try:
        given = dict(parser.make_context(entry.name, list(words[1:])).params)
        ranks, restarts = given.pop("ranks"), given.pop("restarts")
        del given["rest"]
        running = running_parameters(read_values(options, given))
    except (click.ClickException, InputError):
        return
    if ranks > 1:
        share_out(ranks, running, spared=entry.queued, restarts=restarts)
