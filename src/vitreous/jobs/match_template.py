"""Find and orient molecules in micrographs by their correlation with projections of a template (2DTM)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError
from vitreous.core.search_grid import AngleLimits
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.leopard import MAP_NAMES, read_match_config, write_results
from vitreous.io.mrc import read_map
from vitreous.io.relion import read_dataset, write_dataset, write_tables
from vitreous.job import Context, Job, Outputs, Quarantined
from vitreous.jobs._leopard import lens_of_leopard, settings_of_leopard
from vitreous.jobs._matching import Ticker, match_file
from vitreous.jobs._matching_files import map_files
from vitreous.jobs._matching_parameters import MatchTemplateParameters, filters_of
from vitreous.jobs._matching_ranks import Team, match_over_ranks
from vitreous.jobs._matching_tables import coordinates_table, hits_table, results_columns
from vitreous.jobs._matching_task import Machine, Matched, PeakChoice, Task
from vitreous.methods.matching.match import MatchSettings
from vitreous.methods.matching.transfer import Lens

log = logging.getLogger(__name__)
_FULL_ONLY = (
    "robust",
    "calibrated",
    "p_value",
    "angles",
    "pixel_size_range",
)  # what the hierarchical strategy does not offer
_ABERRATIONS = ("beam_tilt_x", "odd_zernike", "even_zernike", "magnification_xx")  # whose senses are RELION's


class MatchTemplate(Job):
    """2D template matching: whitened micrographs against CTF-modulated projections at all orientations and defoci."""

    name = "match-template"
    folder = "MatchTemplate"
    relion_type = "vitreous.matchtemplate"
    help = "find molecules in micrographs with a template (2DTM)"
    Parameters = MatchTemplateParameters
    shared = queued = True

    def run(self, params: Any, context: Context) -> Outputs:
        """Write eight maps a micrograph, results.csv, matches.star (coordinates), particles.star (hits with poses)."""
        if params.strategy == "hierarchical" and (left := [n for n in _FULL_ONLY if getattr(params, n)]):
            raise InputError(
                f"--{left[0].replace('_', '-')}", "does not go with --strategy hierarchical", "Use --strategy full."
            )
        tasks, template, template_path = _tasks(params, context)
        choice = PeakChoice(
            params.false_positives, params.threshold, params.calibrated, params.p_value, params.min_distance
        )
        machine = Machine(context.device, context.memory, context.seed, params.checkpoint_interval, params.strategy)
        done: list[tuple[Task, Matched]] = []
        failed: list[tuple[Task, InputError]] = []
        for task, matched in _matches(tasks, template, choice, machine, params, context):
            if isinstance(matched, InputError):
                failed.append((task, matched))
                if len(tasks) > 1:
                    log.warning("%s left out: %s", task.name, matched)
            else:
                done.append((task, matched))
                log.info("%s: %d hits above %.2f", task.name, len(matched.hits), matched.hits.threshold)
        if len(tasks) == 1 and failed:
            raise failed[0][1]
        if not done:
            raise InputError(params.micrographs, "none of its micrographs could be searched", str(failed[0][1]))
        return _write(done, [Quarantined(task.name, str(error)) for task, error in failed], template_path, context)


def _matches(
    tasks: list[Task],
    template: Volume,
    choice: PeakChoice,
    machine: Machine,
    params: MatchTemplateParameters,
    context: Context,
) -> Iterator[tuple[Task, Matched | InputError]]:
    """What came of each micrograph: in this process, or by all ranks together."""
    if context.ranks is not None and context.ranks.meeting is not None:
        team = Team(context.ranks, context.directory / "stretches", context.threads, params.stretch)
        yield from match_over_ranks(tasks, template, choice, machine, team, resume=context.resume)
        return
    for number, task in enumerate(tasks, 1):
        log.info("micrograph %d of %d: %s", number, len(tasks), task.name)
        try:
            tick = Ticker(task.name)
            yield task, match_file(task, template, choice, machine, resume=context.resume, tick=tick)
        except InputError as error:
            yield task, error


def _tasks(params: MatchTemplateParameters, context: Context) -> tuple[list[Task], Volume, Path]:
    if params.leopard_yaml:
        if params.micrographs or params.template:
            raise InputError("--leopard-yaml", "names template and micrograph itself", "Leave the other options out.")
        return _leopard_task(params, context)
    for name in ("micrographs", "template"):
        if not getattr(params, name):
            raise InputError(f"--{name}", "is missing", "Give it, or --leopard-yaml.")
    dataset = read_dataset(context.project / params.micrographs)
    where = context.project / params.micrographs
    if dataset.kind != "micrographs" or "defocus_u" not in dataset.rows:
        raise InputError(where, "lists no micrographs with CTF", "Give the micrographs_ctf.star of a CTF job.")
    if left := [name for name in _ABERRATIONS if name in dataset.optics]:
        log.warning("%s: %s of its optics table is not used (a Leopard-EM YAML's aberrations are)", where, left[0])
    path = context.project / params.template
    template = read_map(path)
    tasks = []
    for index in range(len(dataset)):
        name = str(dataset.rows["micrograph_name"][index])
        lens = _lens(dataset, index, params, where)
        stem = context.place_of(name)
        tasks.append(Task(name, context.project / name, lens, _settings(params, lens, context), stem, map_files(stem)))
    if not tasks:
        raise InputError(where, "lists no micrographs", "Give a STAR file with at least one.")
    return tasks, _checked(path, template), path


def _leopard_task(params: MatchTemplateParameters, context: Context) -> tuple[list[Task], Volume, Path]:
    where = context.project / params.leopard_yaml
    config = read_match_config(where)
    stem = context.directory / config.micrograph.stem
    files = {**map_files(stem)}
    for ours, theirs in MAP_NAMES.items():
        if (target := config.maps.get(theirs)) is not None:
            target = context.project / target
            if target.exists() and not config.overwrite and not context.resume:
                raise InputError(target, "exists, and allow_file_overwrite is false", "Remove it or allow overwriting.")
            files[ours] = target
    settings = replace(settings_of_leopard(config, where), trimmed=params.robust, padding=params.padding)
    path = context.project / config.template
    name = str(config.micrograph)
    task = Task(name, context.project / config.micrograph, lens_of_leopard(config), settings, stem, files)
    return [task], _checked(path, read_map(path)), path


def _checked(path: Path, template: Volume) -> Volume:
    if template.box % 2:
        raise InputError(path, f"has an odd box of {template.box}", "Pad it by one voxel.")
    return template


def _lens(dataset: Dataset, index: int, params: MatchTemplateParameters, where: Path) -> Lens:
    row = dataset.rows.row(index)
    optics = {name: dataset.optics_of_rows(name)[index] for name in dataset.optics}
    missing = [name for name in ("voltage", "cs", "amplitude_contrast") if name not in optics]
    pixel_size = float(optics.get("micrograph_pixel_size", optics.get("movie_pixel_size", 0.0)))
    if missing or pixel_size <= 0:
        raise InputError(where, f"its optics table has no {(*missing, 'pixel size')[0]}", "Add it.")
    return Lens(
        pixel_size,
        Microscope(float(optics["voltage"]), float(optics["cs"]), float(optics["amplitude_contrast"])),
        float(row["defocus_u"]),
        float(row.get("defocus_v", row["defocus_u"])),
        float(row.get("defocus_angle", 0.0)),
        float(row.get("phase_shift", 0.0)),
        params.b_factor,
    )


def _settings(params: MatchTemplateParameters, lens: Lens, context: Context) -> MatchSettings:
    return MatchSettings(
        params.psi_step,
        params.theta_step,
        params.symmetry,
        params.grid,
        _limits(params),
        _angle_list(context.project / params.angles) if params.angles else None,
        -params.defocus_range,
        params.defocus_range,
        params.defocus_step,
        filters_of(params, lens.pixel_size),
        params.robust,
        params.padding,
        params.corners,
        _scales(params, lens.pixel_size),
    )


def _scales(params: MatchTemplateParameters, pixel_size: float) -> tuple[float, ...]:
    """Pixels that are larger than assumed make the template's voxels smaller beside them."""
    count = int(params.pixel_size_range / params.pixel_size_step + 1e-9)
    return tuple(pixel_size / (pixel_size + i * params.pixel_size_step) for i in range(-count, count + 1))


def _limits(params: MatchTemplateParameters) -> AngleLimits | None:
    given = {"phi": params.phi_limits, "theta": params.theta_limits, "psi": params.psi_limits}
    if not any(given.values()):
        return None
    for name, values in given.items():
        if values and (len(values) != 2 or values[0] >= values[1]):
            raise InputError(f"--{name}-limits", f"{values} is no range", "Give lowest,highest.")
    return AngleLimits(**{name: (values[0], values[1]) for name, values in given.items() if values})


def _angle_list(path: Path) -> torch.Tensor:
    try:
        values = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(path, f"is no list of angles ({error})", "Give lines of phi theta psi.") from error
    if values.shape[1] != 3 or not len(values):
        raise InputError(path, f"has {values.shape[1]} columns, not 3", "Give lines of phi theta psi.")
    return torch.from_numpy(values)


def _write(done: list[tuple[Task, Matched]], failed: list[Quarantined], template: Path, context: Context) -> Outputs:
    results = [results_columns(m, task.lens, task.path, template) for task, m in done]
    joined = Table.concatenate([Table(one) for one in results])
    write_results(context.directory / "results.csv", dict(joined), extra=("p_value",))
    listing = []
    for task, matched in done:
        path = task.stem.with_name(f"{task.stem.name}_matches.star")
        write_tables(path, {"": coordinates_table(matched)})
        listing.append(context.relative(path))
    names = np.array([task.name for task, _ in done], dtype=object)
    matches = context.directory / "matches.star"
    write_tables(
        matches,
        {"coordinate_files": Table({"micrograph_name": names, "coordinate_file": np.array(listing, dtype=object)})},
    )
    particles = context.directory / "particles.star"
    write_dataset(particles, hits_table([(task.name, task.lens, matched) for task, matched in done]))
    _write_summary(done, context)
    counts = [len(matched.hits) for _, matched in done]
    rate = float(np.mean([matched.rate for _, matched in done]))
    return Outputs(
        nodes={
            context.relative(matches): "MicrographCoordsGroup.star.relion.autopick",
            context.relative(particles): "ParticleGroupMetadata.star.relion",
        },
        metrics={
            "n_micrographs": len(done),
            "n_hits": int(sum(counts)),
            "threshold_z": done[0][1].hits.threshold,
            "n_correlations": done[0][1].n_correlations,
            "correlations_per_s": rate,
        },
        quarantined=failed,
        summary=f"{sum(counts)} hits in {len(done)} micrographs, z above {done[0][1].hits.threshold:.2f}, "
        f"{rate:.3g} correlations a second",
    )


def _write_summary(done: list[tuple[Task, Matched]], context: Context) -> None:
    """What the report needs to draw each micrograph."""
    columns: dict[str, Any] = {
        "micrograph_name": np.array([task.name for task, _ in done], dtype=object),
        "scaled_mip_file": np.array([str(task.files["scaled_mip"]) for task, _ in done], dtype=object),
        "mip_file": np.array([str(task.files["mip"]) for task, _ in done], dtype=object),
        "n_hits": np.array([len(m.hits) for _, m in done], dtype=np.int64),
        "threshold": np.array([m.hits.threshold for _, m in done]),
        "n_correlations": np.array([m.n_correlations for _, m in done], dtype=np.int64),
        "template_box": np.array([m.box for _, m in done], dtype=np.int64),
        "pixel_size": np.array([task.lens.pixel_size for task, _ in done]),
    }
    write_tables(context.directory / "matching_summary.star", {"micrographs": Table(columns)})
