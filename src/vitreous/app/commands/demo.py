"""Simulate movies, process them to a map, compare it with the truth (needs no data)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from vitreous.app.job_command import JobCommand
from vitreous.app.options import ParameterOption, make_parameters, read_values
from vitreous.app.report.project_page import write_project_page
from vitreous.app.road import hooks
from vitreous.pipeline.demo import DemoParameters, demo_figures, run_demo
from vitreous.pipeline.truth import Sample, compare_with_truth, find_results
from vitreous.runtime.atomic import write_text


def _run(project: str, **texts: Any) -> None:
    settings = make_parameters(DemoParameters, read_values(command.params, texts))
    assert isinstance(settings, DemoParameters)
    root = Path(project).resolve()
    start = time.monotonic()
    road, simulated = run_demo(root, settings, hooks(root))
    sample = Sample(road.settings.particle_diameter, road.settings.symmetry)
    truth = dict(compare_with_truth(root, simulated, find_results(root), sample))
    figures = demo_figures(road, simulated, truth) | {"wall_seconds": round(time.monotonic() - start, 1)}
    write_text(root / "summary.json", json.dumps(figures, indent=2) + "\n")
    page = write_project_page(root, title=f"vitreous demo: {Path(settings.model).stem}", truth=truth)
    click.echo(f"{road.done['postprocess'].summary}\n{root / 'summary.json'}\n{page}")


command = JobCommand(
    "demo",
    params=[
        click.Argument(["project"], metavar="PROJECT", default="demo"),
        *(ParameterOption(name, info) for name, info in DemoParameters.model_fields.items()),
    ],
    callback=_run,
    help=__doc__,
)
