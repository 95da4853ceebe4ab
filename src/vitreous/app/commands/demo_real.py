"""Take real beta-galactosidase particles to a map (needs the real data: --data or VITREOUS_DATA)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from vitreous.app.job_command import JobCommand
from vitreous.app.options import ParameterOption, make_parameters, read_values
from vitreous.app.report.project_page import write_project_page
from vitreous.app.road import hooks
from vitreous.pipeline.betagal import BetagalParameters, run_betagal
from vitreous.pipeline.summary import road_figures
from vitreous.runtime.atomic import write_text


def _run(project: str, **texts: Any) -> None:
    given = read_values(command.params, texts)
    given.setdefault("data", os.environ.get("VITREOUS_DATA", "../shared/data"))
    settings = make_parameters(BetagalParameters, given)
    assert isinstance(settings, BetagalParameters)
    root = Path(project).resolve()
    start = time.monotonic()
    road = run_betagal(root, settings, hooks(root))
    figures = road_figures(road) | {"wall_seconds": round(time.monotonic() - start, 1)}
    write_text(root / "summary.json", json.dumps(figures, indent=2) + "\n")
    page = write_project_page(root, title="Beta-galactosidase (EMPIAR-10204)")
    click.echo(f"{road.done['postprocess'].summary}\n{root / 'summary.json'}\n{page}")


command = JobCommand(
    "demo-real",
    params=[
        click.Argument(["project"], metavar="PROJECT", default="demo-real"),
        *(ParameterOption(name, info) for name, info in BetagalParameters.model_fields.items()),
    ],
    callback=_run,
    help=__doc__,
)
