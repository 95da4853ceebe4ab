"""Estimate the CTF of every micrograph: defocus, astigmatism, phase shift, and how far the fit holds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.failed import write_failed
from vitreous.io.relion import write_dataset
from vitreous.job import Context, Job, Outputs, Quarantined
from vitreous.jobs._ctf_micrograph import COLUMNS, CtfRow, attempt, task_of
from vitreous.jobs._ctf_parameters import CtfParameters
from vitreous.jobs._micrographs import read_micrographs
from vitreous.runtime.progress import track
from vitreous.runtime.queue import shared_out

log = logging.getLogger(__name__)
_ICY = 0.15  # ice ring by which a micrograph counts as icy in the figures (nothing is left out for it)


class Ctf(Job):
    """Power spectrum, search over defocus and astigmatism, refinement, equiphase resolution."""

    name = "ctf"
    folder = "CtfFind"
    relion_type = "relion.ctffind.ctffind4"
    help = "estimate defocus and astigmatism of micrographs"
    Parameters = CtfParameters
    shared = queued = True

    def run(self, params: Any, context: Context) -> Outputs:
        """Write micrographs_ctf.star and, per micrograph, NAME_ctf.mrc (picture) and NAME_ctf.star (fit, curve)."""
        dataset = _read(params, context)
        results = list(track(_fit_all(dataset, params, context), "CTF", len(dataset)))
        failed = [result for result in results if isinstance(result, Quarantined)]
        for item in failed:
            log.warning("%s left out: %s", item.item, item.reason)
        done = [result for result in results if isinstance(result, CtfRow)]
        if not done:
            write_failed(context.directory, [(one.item, one.reason) for one in failed])
            raise InputError(
                context.project / params.input,
                f"no CTF could be fitted to any of {len(results)} micrographs; the first: {failed[0].reason}",
                "Check voltage, pixel size and defocus range, or the micrographs themselves.",
            )
        output = context.directory / "micrographs_ctf.star"
        write_dataset(output, with_fits(dataset, done, params))
        return Outputs(
            nodes={context.relative(output): "MicrographGroupMetadata.star.relion.ctf"},
            metrics=_metrics(done, failed),
            quarantined=failed,
            summary=_summary(done, failed) + _sample_words(done, params),
        )


def _read(params: CtfParameters, context: Context) -> Dataset:
    path = context.project / params.input
    params.check()
    dataset = read_micrographs(path, "Give motion correction's output.")
    missing = [name for name in ("voltage", "cs", "amplitude_contrast") if name not in dataset.optics]
    if missing:
        raise InputError(path, f"its optics table has no {', '.join(missing)}", "Import the movies with these values.")
    if len(dataset) == 0:
        raise InputError(path, "lists no micrographs", "Give a STAR file with at least one.")
    return dataset


def _fit_all(dataset: Dataset, params: CtfParameters, context: Context) -> Iterator[CtfRow | Quarantined]:
    """Results in the order of the table. The fits are numpy and FFT work that leaves Python's lock free."""
    tasks = [task_of(dataset, index, params, context) for index in range(len(dataset))]
    return shared_out(tasks, lambda task: attempt(task, params, context), threads=context.threads, ranks=context.ranks)


def with_fits(dataset: Dataset, done: list[CtfRow], params: CtfParameters) -> Dataset:
    """The micrographs that were fitted, with what the fits say."""
    kept = dataset.take(np.array([row.index for row in done], dtype=np.int64))
    names = [*COLUMNS, "phase_shift"] if params.phase_shift or "phase_shift" in dataset.rows else list(COLUMNS)
    names += ["sample_thickness"] if params.thickness_max else []
    names += ["sample_tilt", "tilt_axis"] if params.tilt else []
    columns: dict[str, Any] = {name: np.array([row.values[name] for row in done]) for name in names}
    if np.isnan(columns["ice_ring"]).all():
        del columns["ice_ring"]  # pixels too coarse to see it
    columns["ctf_image"] = np.array([f"{row.image}:mrc" for row in done], dtype=object)
    return kept.with_columns(**columns)


def _metrics(done: list[CtfRow], failed: list[Quarantined]) -> dict[str, float | int | str]:
    def median(name: str) -> float:
        return float(np.median([row.values[name] for row in done]))

    return {
        "n_micrographs": len(done),
        "n_left_out": len(failed),
        "defocus_median_A": 0.5 * (median("defocus_u") + median("defocus_v")),
        "astigmatism_median_A": median("astigmatism"),
        "ctf_resolution_median_A": median("ctf_resolution"),
        "n_with_ice_ring": sum(row.values["ice_ring"] > _ICY for row in done),
        "n_previous_wrong": sum(row.previous_score is not None and row.previous_score < 0.5 for row in done),
    }


def _sample_words(done: list[CtfRow], params: CtfParameters) -> str:
    """What was found of the samples' tilt and thickness, where it was asked for."""
    text = ""
    if params.tilt:
        tilts = [row.values["sample_tilt"] for row in done if not math.isnan(row.values["sample_tilt"])]
        text += f"; tilts {min(tilts):.0f} to {max(tilts):.0f} degrees" if tilts else "; no tilt found"
    if params.thickness_max:
        thick = [row.values["sample_thickness"] for row in done if row.values["sample_thickness"] > 0]
        text += f"; {len(thick)} show nodes of thickness"
        text += f" ({min(thick):.0f} to {max(thick):.0f} A)" if thick else ""
    return text


def _summary(done: list[CtfRow], failed: list[Quarantined]) -> str:
    defocus = [0.5e-4 * (row.values["defocus_u"] + row.values["defocus_v"]) for row in done]
    resolution = float(np.median([row.values["ctf_resolution"] for row in done]))
    text = f"CTF of {len(done)} micrographs: defocus {min(defocus):.2f} to {max(defocus):.2f} um, "
    text += f"fits to {resolution:.1f} A (median)"
    wrong = sum(row.previous_score is not None and row.previous_score < 0.5 for row in done)
    if wrong:
        text += f"; the defocus that came with {wrong} of them did not fit and was replaced"
    if failed:
        text += f"; {len(failed)} left out"
    return text
