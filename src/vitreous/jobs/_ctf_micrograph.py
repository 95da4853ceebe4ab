"""One micrograph: what to read, its fit, and what is written of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.mrc import read_image, write_image
from vitreous.job import Context, Quarantined
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

log = logging.getLogger(__name__)
ReadImage = Callable[[Path], tuple[NDArray[Any], float]]
COLUMNS = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "astigmatism",
    "ctf_figure_of_merit",
    "ctf_resolution",
    "ice_ring",
)
_SAMPLE = ("sample_thickness", "sample_tilt", "tilt_axis")


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


def attempt(task: CtfTask, params: CtfParameters, context: Context) -> CtfRow | Quarantined:
    """Fit a micrograph, or take an earlier run's result; what is wrong with it becomes its reason."""
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
    found = read_fit(task.stem, (*COLUMNS, "phase_shift", *_SAMPLE))
    if found is None:
        return None
    values, previous = found
    if params.tilt and not task.is_spectrum and math.isnan(values["sample_tilt"]):
        return None
    return CtfRow(task.index, values, context.relative(picture_of(task.stem)), previous)
