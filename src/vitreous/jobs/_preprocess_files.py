"""The files of `preprocess` that speak of all movies: those that the four jobs would write, and the stream's own."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.failed import write_failed
from vitreous.io.relion import write_dataset, write_tables
from vitreous.job import Outputs, Quarantined
from vitreous.jobs._extract_parameters import recipe_of as cutting_recipe
from vitreous.jobs._motioncorr_work import Work
from vitreous.jobs._preprocess_parameters import Steps
from vitreous.jobs._preprocess_stream import Preprocessed
from vitreous.jobs.autopick import COORDINATES_NODE, write_listing
from vitreous.jobs.ctf import with_fits
from vitreous.jobs.extract import PARTICLES_NODE, image_optics, joined_rows
from vitreous.jobs.motioncorr import micrographs_of
from vitreous.runtime.atomic import write_text

STREAM = "stream.star"
STEPS = ("reading", "motion", "CTF", "picking", "extraction")
_HOUR = 3600.0


def write_so_far(steps: Steps, work: Work, results: Sequence[Preprocessed], started: float, *, last: bool) -> Outputs:
    """Write every table from what is done; results in the order of acquisition. last: nothing is to come.

    started: seconds since 1970.
    """
    context = work.context
    failed = [Quarantined(one.name, one.left_out) for one in results if one.left_out]
    outputs = Outputs(quarantined=failed, metrics=_metrics(results, failed, started))
    write_failed(context.directory, [(one.item, one.reason) for one in failed])
    write_tables(context.directory / STREAM, {"movies": _table(results)})
    micrographs = _write_micrographs(steps, work, results, outputs)
    found = [one for one in results if one.found is not None and not one.left_out]
    if found:
        _write_picks(found, failed, work, outputs, last=last)
    if steps.extract is not None and micrographs is not None:
        _write_particles(steps, micrographs, found, work, outputs)
    outputs.summary = _summary(outputs.metrics, len(failed))
    if not last:
        content = {
            "metrics": outputs.metrics,
            "summary": outputs.summary,
            "quarantined": [{"item": one.item, "reason": one.reason} for one in failed],
        }
        write_text(context.directory / "metrics.json", json.dumps(content, indent=2) + "\n")
    return outputs


def _write_micrographs(steps: Steps, work: Work, results: Sequence[Preprocessed], outputs: Outputs) -> Dataset | None:
    """corrected_micrographs.star and micrographs_ctf.star; the latter's content."""
    context = work.context
    moved = [one for one in results if one.motion is not None]
    if not moved:
        return None
    corrected = micrographs_of(work, [one.motion for one in moved if one.motion is not None])
    target = context.directory / "corrected_micrographs.star"
    write_dataset(target, corrected)
    outputs.nodes[context.relative(target)] = "MicrographGroupMetadata.star.relion.motioncorr"
    fits = [replace(one.fit, index=index) for index, one in enumerate(moved) if one.fit is not None]
    if not fits:
        return None
    fitted = with_fits(corrected, fits, steps.ctf)
    target = context.directory / "micrographs_ctf.star"
    write_dataset(target, fitted)
    outputs.nodes[context.relative(target)] = "MicrographGroupMetadata.star.relion.ctf"
    return fitted


def _write_picks(
    done: Sequence[Preprocessed], failed: list[Quarantined], work: Work, outputs: Outputs, *, last: bool
) -> None:
    context = work.context
    found = [one.found for one in done if one.found is not None]
    target = context.directory / "autopick.star"
    if last:
        counts = [one.picks.n_rows for one in done if one.picks is not None]
        cuts = [one.cut for one in done if one.cut is not None]
        write_listing(found, counts, cuts, failed, context)
    else:
        files = [context.relative(Path(f"{one.place}_autopick.star")) for one in found]
        listing = Table({"micrograph_name": [one.name for one in found], "coordinate_file": files})
        write_tables(target, {"coordinate_files": listing})
    outputs.nodes[context.relative(target)] = COORDINATES_NODE


def _write_particles(
    steps: Steps, micrographs: Dataset, done: Sequence[Preprocessed], work: Work, outputs: Outputs
) -> None:
    assert steps.extract is not None
    tables = [one.stack.rows for one in done if one.stack is not None and one.stack.rows.n_rows]
    if not tables:
        return
    optics = image_optics(micrographs.optics, cutting_recipe(steps.extract))
    target = work.context.directory / "particles.star"
    write_dataset(target, Dataset("particles", optics, joined_rows(tables)))
    outputs.nodes[work.context.relative(target)] = PARTICLES_NODE


def _table(results: Sequence[Preprocessed]) -> Table:
    """A row a movie, in the order of acquisition; what is not known is not a number."""

    def column(name: str) -> list[float]:
        return [float("nan") if one.fit is None else one.fit.values.get(name, float("nan")) for one in results]

    def motion(name: str) -> list[float]:
        return [float("nan") if one.motion is None else getattr(one.motion.motion, name) for one in results]

    columns: dict[str, Any] = {"movie_name": np.array([one.name for one in results], dtype=object)}
    columns["micrograph_name"] = np.array(
        ["none" if one.motion is None else one.motion.files["micrograph_name"] for one in results], dtype=object
    )
    columns |= {name: motion(name.removeprefix("motion_")) for name in ("motion_total", "motion_early")}
    names = ("defocus_u", "defocus_v", "astigmatism", "ctf_resolution", "ctf_figure_of_merit", "ice_ring")
    columns |= {name: column(name) for name in names}
    columns["vitreousPicks"] = [-1 if one.picks is None else one.picks.n_rows for one in results]
    columns["vitreousParticles"] = [-1 if one.stack is None else one.stack.rows.n_rows for one in results]
    columns["vitreousLeftOut"] = [int(bool(one.left_out)) for one in results]
    columns["vitreousFinished"] = [one.finished for one in results]
    for step in STEPS:
        columns[f"vitreousSeconds{step.capitalize()}"] = [one.seconds.get(step, 0.0) for one in results]
    return Table(columns)


def _metrics(
    results: Sequence[Preprocessed], failed: Sequence[Quarantined], started: float
) -> dict[str, float | int | str]:
    whole = [one for one in results if not one.left_out]
    new = [one.finished for one in results if one.finished >= started and "motion" in one.seconds]
    metrics: dict[str, float | int | str] = {"n_movies": len(whole), "n_left_out": len(failed)}
    if new:
        metrics["movies_per_hour"] = round(len(new) / max(max(new) - started, 1e-3) * _HOUR, 1)
        recent = [when for when in new if when > time.time() - _HOUR]
        if recent and time.time() - started > _HOUR:
            metrics["movies_in_last_hour"] = len(recent)
    if whole:
        fits = [one.fit.values for one in whole if one.fit is not None]
        motions = [one.motion.motion.total for one in whole if one.motion is not None]
        metrics["motion_median_A"] = round(float(np.median(motions)), 2)
        metrics["ctf_resolution_median_A"] = round(float(np.median([one["ctf_resolution"] for one in fits])), 2)
        defocus = [0.5e-4 * (one["defocus_u"] + one["defocus_v"]) for one in fits]
        metrics |= {"defocus_lowest_um": round(min(defocus), 3), "defocus_highest_um": round(max(defocus), 3)}
    if any(one.picks is not None for one in whole):
        metrics["n_picks"] = sum(one.picks.n_rows for one in whole if one.picks is not None)
    if any(one.stack is not None for one in whole):
        metrics["n_particles"] = sum(one.stack.rows.n_rows for one in whole if one.stack is not None)
    return metrics


def _summary(metrics: dict[str, float | int | str], n_failed: int) -> str:
    text = f"{metrics['n_movies']} movies"
    if "motion_median_A" in metrics:
        text += f" moved {metrics['motion_median_A']:.1f} A (median), CTF to {metrics['ctf_resolution_median_A']:.1f} A"
    for name, words in (("n_picks", "picks"), ("n_particles", "particles")):
        if name in metrics:
            text += f", {metrics[name]} {words}"
    if "movies_per_hour" in metrics:
        text += f"; {metrics['movies_per_hour']:.0f} movies an hour"
    return text + (f"; {n_failed} left out" if n_failed else "")
