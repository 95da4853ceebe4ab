"""Correct beam-induced motion: movies in, dose-weighted micrographs, power spectra and motion tracks out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.failed import write_failed
from vitreous.io.relion import write_dataset
from vitreous.job import Context, Job, Outputs, Quarantined
from vitreous.jobs._motioncorr_movie import MotionRow, attempt, memory_of
from vitreous.jobs._motioncorr_parameters import MotioncorrParameters
from vitreous.jobs._motioncorr_work import Work, prepare
from vitreous.methods.motion.correction import binned_shape
from vitreous.runtime.progress import track
from vitreous.runtime.queue import shared_out

log = logging.getLogger(__name__)


class Motioncorr(Job):
    """Gain and defects, whole-frame and local alignment, interpolation, dose-weighted sum, power spectrum."""

    name = "motioncorr"
    folder = "MotionCorr"
    relion_type = "relion.motioncorr.own"
    help = "correct the motion of movies and sum their frames"
    Parameters = MotioncorrParameters
    shared = queued = True

    def run(self, params: Any, context: Context) -> Outputs:
        """Write corrected_micrographs.star and, per movie, .mrc, .star, _PS.mrc and on request _noDW.mrc."""
        work = prepare(params, context)
        start = time.monotonic()
        results = list(track(_correct_all(work), "motion correction", len(work.dataset)))
        failed = [result for result in results if isinstance(result, Quarantined)]
        for item in failed:
            log.warning("%s left out: %s", item.item, item.reason)
        done = [result for result in results if isinstance(result, MotionRow)]
        if not done:
            write_failed(context.directory, [(one.item, one.reason) for one in failed])
            what = f"none of its {len(results)} movies could be used; the first: {failed[0].reason}"
            raise InputError(context.project / params.input, what, "Check the movies.")
        output = context.directory / "corrected_micrographs.star"
        write_dataset(output, micrographs_of(work, done))
        metrics = _metrics(done, failed) | {"seconds_per_movie": (time.monotonic() - start) / len(results)}
        return Outputs(
            nodes={context.relative(output): "MicrographGroupMetadata.star.relion.motioncorr"},
            metrics=metrics,
            quarantined=failed,
            summary=_summary(done, failed),
        )


def _correct_all(work: Work) -> Iterator[MotionRow | Quarantined]:
    """Results in the order of the table: as many movies at once as threads and memory allow."""
    context, n = work.context, len(work.dataset)
    at_once = 1
    if context.device.type == "cpu":
        needed = max(memory_of(work, shape) for shape in work.shapes.values())
        at_once = max(1, min(context.threads, n, context.memory // max(needed, 1)))
    threads = max(1, context.threads // at_once)
    before = torch.get_num_threads()
    try:
        yield from shared_out(
            range(n),
            lambda index: attempt(work, index, at_once),
            threads=at_once,
            ranks=context.ranks,
            start_thread=lambda: torch.set_num_threads(threads),
        )
    finally:
        torch.set_num_threads(before)


def micrographs_of(work: Work, done: list[MotionRow]) -> Dataset:
    """The table of micrographs, with the columns that RELION writes."""
    columns: dict[str, Any] = {column: [row.files[column] for row in done] for column in done[0].files}
    indices = np.array([row.index for row in done])
    columns["optics_group"] = work.dataset.rows["optics_group"][indices]
    for name in ("total", "early", "late"):
        columns[f"motion_{name}"] = [getattr(row.motion, name) for row in done]
    optics = work.dataset.optics
    sizes = []
    for group, pixel_size in zip(optics["optics_group"], optics["movie_pixel_size"], strict=True):
        shape = work.shapes.get(int(group), (2, 2))
        sizes.append(float(pixel_size) * shape[1] / binned_shape(shape, work.params.bin)[1])
    return Dataset("micrographs", optics.with_columns(micrograph_pixel_size=sizes), Table(columns))


def _metrics(done: list[MotionRow], failed: list[Quarantined]) -> dict[str, float | int | str]:
    fits = [row.record.fit for row in done]
    return {
        "n_movies": len(done),
        "n_left_out": len(failed),
        "n_global_only": sum(bool(fit.get("no_local_because", "")) for fit in fits),
        "n_patches_rejected": sum(int(fit.get("n_patches_rejected", 0)) for fit in fits),
        "n_with_local_motion": sum(row.record.motion.coefficients is not None for row in done),
        "motion_total_mean_A": float(np.mean([row.motion.total for row in done])),
        "motion_total_max_A": float(np.max([row.motion.total for row in done])),
        "motion_early_mean_A": float(np.mean([row.motion.early for row in done])),
        "shift_uncertainty_mean_A": float(
            np.mean(
                [float(f.get("uncertainty_px", 0.0)) * r.record.pixel_size for f, r in zip(fits, done, strict=True)]
            )
        ),
        "n_pixels_replaced_mean": float(np.mean([len(row.record.motion.hot_pixels) for row in done])),
    }


def _summary(done: list[MotionRow], failed: list[Quarantined]) -> str:
    total = np.array([row.motion.total for row in done])
    local = sum(row.record.motion.coefficients is not None for row in done)
    text = f"{len(done)} movies moved {np.median(total):.1f} A (median, up to {total.max():.1f}); "
    text += f"{local} with local motion"
    fallen = sum(bool(row.record.fit.get("no_local_because", "")) for row in done)
    text += f", {fallen} aligned as a whole because their patches say too little" if fallen else ""
    return text + (f"; {len(failed)} left out" if failed else "")
