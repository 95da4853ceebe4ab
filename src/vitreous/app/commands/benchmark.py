"""Measure 2D or 3D classification on this machine (seconds of the iterations), or ways to correct movies (`motion`)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

from vitreous.core.errors import InputError
from vitreous.pipeline.benchmark.run import (
    command as job_words,
)
from vitreous.pipeline.benchmark.run import (
    measure,
    public_data,
    read_result,
    synthetic_data,
    write_result,
)
from vitreous.pipeline.benchmark.settings import FULL_PARTICLES, Settings, scaled, sweep
from vitreous.pipeline.project import Project

_BUSY = 10.0  # percent of the machine
_RIBOSOMES = ("more/models/ribosome70S_EFTu_tRNA.pdb.gz", "models/1xnr_30S_subunit.cif.gz")


_DATA_OPTIONS = (
    click.option("--class", "case", type=click.Choice(["2d", "3d"]), help="2D or 3D classification"),
    click.option("-d", "--device", type=click.Choice(["cpu", "cuda", "hip"]), default="cpu", help="what computes"),
    click.option("-g", "--gpus", type=click.IntRange(0), default=0, help="how many GPUs"),
    click.option("-i", "--input", "data", metavar="DATA", help="folder of RELION's public benchmark"),
    click.option("--synthetic", type=click.FloatRange(0, 1, min_open=True), metavar="SCALE", help="simulate a set"),
    click.option("--model", default="", help="atomic model for that  [default: a ribosome of VITREOUS_DATA]"),
    click.option("-o", "--output", metavar="OUT", default="benchmark", show_default=True, help="where to work"),
)


def _data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is measured: shared by one benchmark and a sweep."""
    for option in reversed(_DATA_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class _Data:
    """What is classified. classes: 0 for the public benchmark's own number."""

    particles: Path
    reference: Path
    n_particles: int
    classes: int


@click.group("benchmark", help=__doc__, invoke_without_command=True)
@_data_options
@click.option("-n", "--ranks", type=click.IntRange(1), default=1, show_default=True, help="ranks")
@click.option("-j", "--threads", type=click.IntRange(1), default=1, show_default=True, help="threads of each")
@click.option("-p", "--pool", type=click.IntRange(0), default=0, help="most particles in a batch (0: automatic)")
@click.option("--iter", "iterations", type=click.IntRange(1), default=25, show_default=True, help="iterations")
@click.option("--continue", "after", type=click.IntRange(1), help="measure only from this iteration of the last run on")
@click.option("--scratch_dir", "--scratch-dir", "scratch", help="copy the particles there first (timed apart)")
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """One benchmark: OUT/NAME/benchmark.json, a table and a plot."""
    if context.invoked_subcommand is not None:
        return
    if not given["case"]:
        raise InputError("--class", "is missing", "Say 2d or 3d.")
    names = ("case", "device", "gpus", "ranks", "threads", "pool", "iterations")
    settings = Settings(**{name: given[name] for name in names})
    settings.check(_cores())
    root = Project(given["output"]).create().root
    data = _prepare(settings, given, root)
    more = ["--scratch_dir", given["scratch"]] if given["scratch"] else []
    result = _measured(settings, data, root, more, given["after"])
    draw_all([result], root / settings.name)
    print_results([result])
    click.echo(root / settings.name / "benchmark.json")


@command.command("sweep")
@_data_options
@click.option("--pools", default="0", help="pools to try, with commas (0: automatic)")
@click.option("--iter", "iterations", type=click.IntRange(1), default=3, show_default=True, help="iterations of each")
def sweep_command(pools: str, **given: Any) -> None:
    """Try ranks, threads and pools within this machine, and name the best."""
    from vitreous.app.benchmark_figures import draw_sweep

    if not pools.replace(",", "").isdecimal():
        raise InputError("--pools", f"cannot read {pools!r}", "Give e.g. 0,8,32.")
    base = Settings(
        given["case"] or "2d", given["device"], given["gpus"], max(1, given["gpus"]), 1, 0, given["iterations"]
    )
    base.check(_cores())
    root = Project(given["output"]).create().root
    data = _prepare(base, given, root)
    tried = sweep(base, _cores(), tuple(int(one) for one in pools.split(",")))
    results = [_measured(one, data, root, [], None) for one in tried]
    draw_sweep(results, root / "sweep.png")
    print_results(results)
    best = min(results, key=lambda one: float(one["figure_of_merit_s"]))["settings"]
    click.echo(f"best: -n {best['ranks']} -j {best['threads']} -p {best['pool']} ({root / 'sweep.png'})")


@command.command("compare")
@click.argument("files", metavar="RESULT...", nargs=-1, required=True)
@click.option("--plot", default="benchmark.png", show_default=True, help="figure of seconds by iteration")
def compare_command(files: tuple[str, ...], plot: str) -> None:
    """Put several benchmark.json side by side."""
    results = [read_result(Path(one)) for one in files]
    draw_all(results, Path(plot).parent, Path(plot).name)
    print_results(results)


@command.command("motion")
@click.option("--layouts", default="batch,per-file,ranks", show_default=True, help="ways of giving out the movies")
@click.option("--workers", default="1,2", show_default=True, help="threads, processes or ranks to try, with commas")
@click.option("-i", "--input", "movies", metavar="MOVIES", help="a folder, a pattern or a STAR file of movies")
@click.option("--synthetic", type=click.IntRange(1), metavar="N", help="instead: make so many movies")
@click.option("--size", type=click.IntRange(64), default=2048, show_default=True, help="their width, in pixels")
@click.option("--frames", type=click.IntRange(2), default=20, show_default=True, help="their frames")
@click.option("--options", default="--dose-per-frame 1", show_default=True, help="what motioncorr is given besides")
@click.option("-o", "--output", metavar="OUT", default="benchmark", show_default=True, help="where to work")
def motion_command(layouts: str, workers: str, movies: str | None, synthetic: int | None, **given: Any) -> None:
    """Movies an hour of motioncorr, given them at once, one by one, or by a queue: OUT/motion_layouts.json,
    usage.csv (a row a second) and motion_layouts.png."""
    from vitreous.app.benchmark_figures import draw_layouts
    from vitreous.pipeline.benchmark import motion_layouts as layout_runs

    if (movies is None) == (synthetic is None):
        raise InputError("vitreous benchmark motion", "needs either -i or --synthetic", "Say which movies.")
    tried = layout_runs.parse_layouts(layouts, workers)
    root = Project(given["output"]).create().root
    if synthetic:
        place = root / f"movies_{given['size']}x{given['frames']}"
        files = layout_runs.make_movies(place, synthetic, given["size"], given["frames"])
    else:
        files = layout_runs.list_movies(str(movies))
    results = []
    for one in tried:
        click.echo(f"{one.name}: {len(files)} movies ({layout_runs.LAYOUTS[one.kind]})")
        results.append(layout_runs.measure_layout(one, files, root, shlex.split(given["options"])))
    layout_runs.write_results(root, results)
    draw_layouts(results, root / "motion_layouts.png")
    print_layouts(results)
    best = layout_runs.best_of(results)["layout"]
    if max(one["others_cpu_percent"] for one in results) > _BUSY:
        click.echo("other programs used the machine meanwhile: compare CPU seconds, or measure again when it rests")
    click.echo(f"best: {best['kind']} with {best['workers']} ({root / 'motion_layouts.png'})")


def print_layouts(results: Sequence[dict[str, Any]]) -> None:
    """The table of layouts, best first."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("layout", "workers", "movies/h", "seconds", "CPU s a movie", "others' CPU %"):
        table.add_column(title, justify="left" if title == "layout" else "right")
    for one in sorted(results, key=lambda result: -float(result["movies_per_hour"])):
        cpu = one["cpu_seconds"] / one["n_movies"]
        numbers = [f"{one['movies_per_hour']:.0f}", f"{one['seconds']:.1f}", f"{cpu:.2f}"]
        numbers.append(f"{one['others_cpu_percent']:.0f}")
        table.add_row(one["layout"]["kind"], str(one["layout"]["workers"]), *numbers)
    Console().print(table)


def draw_all(results: Sequence[dict[str, Any]], folder: Path, name: str = "benchmark.png") -> None:
    """The plot of seconds by iteration."""
    from vitreous.app.benchmark_figures import draw_iterations

    draw_iterations(results, folder / name)


def print_results(results: Sequence[dict[str, Any]]) -> None:
    """The table, best first."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    phases = ("expectation", "maximisation", "reconstruction", "waiting for ranks")
    titles = ("settings", "seconds", "images/s", *phases, "scratch", "host GB", "device GB", "machine")
    for title in titles:
        table.add_column(title, justify="left" if title in ("settings", "machine") else "right", overflow="fold")
    for one in sorted(results, key=lambda result: float(result["figure_of_merit_s"])):
        spent, figures = one["phase_s"], (one["peak_host_gb"], one["peak_device_gb"])
        table.add_row(
            one["settings"]["name"], f"{one['figure_of_merit_s']:.2f}", f"{one['images_per_s']:.1f}",
            *(f"{spent.get(f'of these {phase}', 0.0):.2f}" for phase in phases), f"{spent['scratch copy']:.2f}",
            *(f"{value:.2f}" for value in figures), one["machine"]["host"],
        )  # fmt: skip
    Console(width=None if Console().is_terminal else 140).print(table)


def _measured(settings: Settings, data: _Data, root: Path, more: list[str], after: int | None) -> dict[str, Any]:
    output = f"{settings.name}/job"
    if after is not None:
        start = root / output / f"run_it{after:03d}_optimiser.star"
        if not start.is_file() or not start.with_name(f"run_it{after + 1:03d}_optimiser.star").is_file():
            what = "is not there, or is the last iteration of that run"
            raise InputError(start, what, "Run the benchmark without --continue first, for more iterations.")
        more, output = [*more, "--continue", str(start.relative_to(root))], f"{settings.name}/from{after:03d}"
    words = job_words(settings, data.particles, data.reference, output, data.classes, more)
    click.echo(f"{settings.name}: {data.n_particles} particles")
    result = measure(settings, words, root, output, data.n_particles)
    write_result(root / settings.name / "benchmark.json", result)
    return result


def _prepare(settings: Settings, given: dict[str, Any], root: Path) -> _Data:
    if (given["data"] is None) == (given["synthetic"] is None):
        raise InputError("vitreous benchmark", "needs either -i or --synthetic", "Say which particles.")
    if given["data"] is not None:
        return _Data(*public_data(Path(given["data"]).resolve()), FULL_PARTICLES, 0)
    shape = scaled(settings.case, given["synthetic"])
    particles, reference = synthetic_data(shape, given["model"] or _ribosome(), root)
    return _Data(particles, reference, shape.particles, shape.classes)


def _ribosome() -> str:
    data = Path(os.environ.get("VITREOUS_DATA", "../shared/data")).resolve()
    found = next((data / name for name in _RIBOSOMES if (data / name).is_file()), None)
    if found is None:
        raise InputError("--synthetic", "needs a model of a ribosome", "Give --model (PDB or mmCIF), e.g. of 4V4Q.")
    return str(found)


def _cores() -> int:
    """Physical cores that this process may use."""
    from vitreous.runtime.device import available_cores

    return min(psutil.cpu_count(logical=False) or 1, available_cores())
