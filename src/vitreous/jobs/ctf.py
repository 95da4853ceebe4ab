"""Estimate the CTF of every micrograph: defocus, astigmatism, phase shift, and how far the fit holds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.failed import write_failed
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context, Job, Outputs, Quarantined
from vitreous.jobs._ctf_files import picture_of, read_fit, write_fit
from vitreous.jobs._ctf_parameters import CtfParameters
from vitreous.methods.ctf_fitting.correlation import Band
from vitreous.methods.ctf_fitting.diagnostic import diagnostic_image
from vitreous.methods.ctf_fitting.fit import CtfFit, fit_ctf, lens_of, score_lens
from vitreous.methods.ctf_fitting.ice import ice_ring
from vitreous.methods.ctf_fitting.spectrum import (
    Spectrum,
    SpectrumError,
    spectrum_from_amplitudes,
    spectrum_of_micrograph,
    tile_spectra,
)
from vitreous.methods.ctf_fitting.tilt import fit_tilted_ctf
from vitreous.runtime.progress import track
from vitreous.runtime.queue import shared_out

log = logging.getLogger(__name__)
ReadImage = Callable[[Path], tuple[NDArray[Any], float]]
_SAMPLE = ("sample_thickness", "sample_tilt", "tilt_axis")
_ICY = 0.15  # ice ring by which a micrograph counts as icy in the figures (nothing is left out for it)
_COLUMNS = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "astigmatism",
    "ctf_figure_of_merit",
    "ctf_resolution",
    "ice_ring",
)


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


@dataclass(frozen=True)
class CtfTask:
    """One micrograph: its row in the table, what to read, through which lens it was taken."""

    index: int
    name: str
    image: Path
    is_spectrum: bool
    pixel_size: float
    microscope: Microscope
    previous: tuple[float, float, float] | None
    stem: Path  # results are stem_ctf.mrc and stem_ctf.star


@dataclass(frozen=True)
class CtfRow:
    """What a micrograph's fit says: values by column name; previous_score: of the defocus the input carried."""

    index: int
    values: dict[str, float]
    image: str
    previous_score: float | None


def _read(params: CtfParameters, context: Context) -> Dataset:
    path = context.project / params.input
    params.check()
    dataset = read_dataset(path)
    if dataset.kind != "micrographs" or "micrograph_name" not in dataset.rows:
        raise InputError(path, f"lists {dataset.kind}, not micrographs", "Give motion correction's output.")
    missing = [name for name in ("voltage", "cs", "amplitude_contrast") if name not in dataset.optics]
    if missing:
        raise InputError(path, f"its optics table has no {', '.join(missing)}", "Import the movies with these values.")
    if len(dataset) == 0:
        raise InputError(path, "lists no micrographs", "Give a STAR file with at least one.")
    return dataset


def _fit_all(dataset: Dataset, params: CtfParameters, context: Context) -> Iterator[CtfRow | Quarantined]:
    """Results in the order of the table. The fits are numpy and FFT work that leaves Python's lock free."""
    tasks = [task_of(dataset, index, params, context) for index in range(len(dataset))]
    return shared_out(tasks, lambda task: _attempt(task, params, context), threads=context.threads, ranks=context.ranks)


def task_of(dataset: Dataset, index: int, params: CtfParameters, context: Context) -> CtfTask:
    """A micrograph of a dataset as something to fit."""
    row = dataset.rows.row(index)
    optics = {name: dataset.optics_of_rows(name)[index] for name in dataset.optics}
    name = str(row["micrograph_name"])
    image, is_spectrum = _source(row, params, context)
    previous = None
    if "defocus_u" in row and float(row["defocus_u"]) > 0:
        previous = (float(row["defocus_u"]), float(row["defocus_v"]), float(row.get("defocus_angle", 0.0)))
    return CtfTask(
        index=index,
        name=name,
        image=image,
        is_spectrum=is_spectrum,
        pixel_size=float(optics.get("micrograph_pixel_size", optics.get("movie_pixel_size", 0.0))),
        microscope=Microscope(float(optics["voltage"]), float(optics["cs"]), float(optics["amplitude_contrast"])),
        previous=previous,
        stem=context.place_of(name),
    )


def _source(row: dict[str, Any], params: CtfParameters, context: Context) -> tuple[Path, bool]:
    """The file to fit and whether it is a stored spectrum; a spectrum stands in for a micrograph that is gone."""
    micrograph = context.project / str(row["micrograph_name"])
    without = str(row.get("micrograph_name_no_dw", ""))
    if params.use_no_dw and without and (context.project / without).exists():
        micrograph = context.project / without
    named = str(row.get("power_spectrum_name", ""))
    spectrum = context.project / named if named else micrograph.with_name(f"{micrograph.stem}_PS.mrc")
    if params.use_power_spectra or (not micrograph.exists() and spectrum.exists()):
        return spectrum, True
    return micrograph, False


def _attempt(task: CtfTask, params: CtfParameters, context: Context) -> CtfRow | Quarantined:
    try:
        row = (stored_fit(task, params, context) if context.resume else None) or fit_micrograph(task, params, context)
    except (SpectrumError, InputError) as error:
        return Quarantined(task.name, str(error))
    except OSError as error:
        return Quarantined(task.name, f"{error.filename or task.image}: {error.strerror or error}")
    reason = too_coarse(row, params)
    return Quarantined(task.name, reason) if reason else row


def too_coarse(row: CtfRow, params: CtfParameters) -> str:
    """Why a fit is not good enough; empty where it is."""
    resolution = row.values["ctf_resolution"]
    if params.max_resolution is None or resolution <= params.max_resolution:
        return ""
    return f"fits only to {resolution:.1f} A, worse than {params.max_resolution:g} A"


def _spectrum(task: CtfTask, params: CtfParameters, read: ReadImage) -> Spectrum:
    if not task.is_spectrum:
        image, size = _micrograph(task, read)
        return spectrum_of_micrograph(image, size, box=params.box, target_pixel_size=params.target_pixel_size)
    if not task.image.exists():
        raise SpectrumError(f"power spectrum {task.image} is not there")
    image, pixel_size = read(task.image)
    if pixel_size <= 0:
        raise SpectrumError(f"{task.image} has no pixel size in its header")
    return spectrum_from_amplitudes(image, pixel_size)


def _micrograph(task: CtfTask, read: ReadImage) -> tuple[NDArray[Any], float]:
    if not task.image.exists():
        raise SpectrumError(f"micrograph {task.image} is not there")
    image, header_size = read(task.image)
    size = task.pixel_size or header_size
    if size <= 0:
        raise SpectrumError(f"neither the STAR file nor {task.image} says the pixel size")
    return image, size


def fit_micrograph(task: CtfTask, params: CtfParameters, context: Context, read: ReadImage = read_image) -> CtfRow:
    """Fit one micrograph and write what came of it. Raises SpectrumError, and what `read` raises."""
    band = Band(params.resolution_min, params.resolution_max)
    tilt = None
    if params.tilt and not task.is_spectrum:
        image, pixel_size = _micrograph(task, read)
        tiles = tile_spectra(image, pixel_size, box=params.box or 512, target_pixel_size=params.target_pixel_size)
        fit, tilt, spectrum = fit_tilted_ctf(tiles, task.microscope, band, params.settings())
    else:
        spectrum = _spectrum(task, params, read)
        fit = fit_ctf(spectrum, task.microscope, band, params.settings())
    if not fit.has_rings:
        raise SpectrumError("no Thon rings stand out of its power spectrum")
    values = {
        "defocus_u": fit.defocus_u,
        "defocus_v": fit.defocus_v,
        "defocus_angle": fit.defocus_angle,
        "astigmatism": fit.defocus_u - fit.defocus_v,
        "phase_shift": fit.phase_shift,
        "ctf_figure_of_merit": fit.figure_of_merit,
        "ctf_resolution": fit.resolution,
        "ice_ring": ice_ring(spectrum),
        "sample_thickness": fit.thickness,
        "sample_tilt": math.nan if tilt is None else tilt.tilt,
        "tilt_axis": math.nan if tilt is None else tilt.axis,
    }
    previous = _previous_score(task, spectrum, fit, band)
    picture = picture_of(task.stem)
    write_image(picture, diagnostic_image(spectrum, fit, task.microscope), spectrum.pixel_size)
    write_fit(task.stem, task.name, values, previous, fit)
    return CtfRow(task.index, values, context.relative(picture), previous)


def _previous_score(task: CtfTask, spectrum: Spectrum, fit: CtfFit, band: Band) -> float | None:
    """Correlation of the defocus that the input carried; a warning where it plainly does not fit."""
    if task.previous is None:
        return None
    score = score_lens(spectrum, task.microscope, lens_of(*task.previous), band)
    ours = score_lens(spectrum, task.microscope, fit.lens, band)
    if score < 0.5 * ours:
        log.warning(
            "%s: the defocus in the input, %.0f A, does not fit (correlation %.3f); %.0f A does (%.3f)",
            task.name, task.previous[0], score, fit.defocus_u, ours,
        )  # fmt: skip
    return score / ours


def stored_fit(task: CtfTask, params: CtfParameters, context: Context) -> CtfRow | None:
    """The result of an earlier run of this job, if it is whole and says what is asked for now."""
    found = read_fit(task.stem, (*_COLUMNS, "phase_shift", *_SAMPLE))
    if found is None:
        return None
    values, previous = found
    if params.tilt and not task.is_spectrum and math.isnan(values["sample_tilt"]):
        return None
    return CtfRow(task.index, values, context.relative(picture_of(task.stem)), previous)


def with_fits(dataset: Dataset, done: list[CtfRow], params: CtfParameters) -> Dataset:
    """The micrographs that were fitted, with what the fits say."""
    kept = dataset.take(np.array([row.index for row in done], dtype=np.int64))
    names = [*_COLUMNS, "phase_shift"] if params.phase_shift or "phase_shift" in dataset.rows else list(_COLUMNS)
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
