"""One movie: what is asked for, its correction, and what is written of it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from vitreous.core.errors import InputError
from vitreous.data.motion import AccumulatedMotion, accumulated_motion, polynomial_error
from vitreous.data.table import Table
from vitreous.io.motion import MotionRecord, read_motion, write_motion
from vitreous.io.movies import Movie
from vitreous.io.mrc import read_header, write_image
from vitreous.job import Quarantined
from vitreous.jobs._motioncorr_parameters import MotioncorrParameters
from vitreous.jobs._motioncorr_work import Work, stem_of
from vitreous.methods.motion.correct import Corrected, MotionOptions, correct_movie, memory_needed
from vitreous.methods.motion.correction import SumOptions
from vitreous.methods.motion.exposure import Exposure
from vitreous.methods.motion.frames import FrameRange
from vitreous.methods.motion.unusable import UnusableMovie

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MotionRow:
    """What one movie's correction says."""

    index: int
    files: dict[str, str]  # column -> path relative to the project
    motion: AccumulatedMotion
    record: MotionRecord


def files_of(work: Work, movie: str) -> dict[str, Path]:
    """Column name -> file of a movie's results."""
    params, stem = work.params, work.context.directory / stem_of(movie, work.context)
    base = stem.name
    files = {"micrograph_name": stem.with_name(f"{base}.mrc")}
    if params.save_no_dw and params.dose_weighting:
        files["micrograph_name_no_dw"] = stem.with_name(f"{base}_noDW.mrc")
    if params.save_even_odd:
        files["micrograph_name_even"] = stem.with_name(f"{base}_EVN.mrc")
        files["micrograph_name_odd"] = stem.with_name(f"{base}_ODD.mrc")
    if params.save_movies:
        files["micrograph_movie_name"] = stem.with_name(f"{base}_movie.mrcs")
    if params.ps_size:
        files["power_spectrum_name"] = stem.with_name(f"{base}_PS.mrc")
    # Written last: where it is, the others are.
    files["micrograph_metadata"] = stem.with_name(f"{base}.star")
    return files


def memory_of(work: Work, shape: tuple[int, int], n_frames: int | None = None) -> int:
    """Bytes at the peak of a movie's correction; n_frames: those of the first movie where not given."""
    if n_frames is None:
        n_frames = work.first().n_frames
    aligned = n_frames * shape[0] * shape[1] * 4 if work.params.save_movies else 0
    return memory_needed(shape, n_frames, work.params.b_factor) + aligned


def attempt(work: Work, index: int, at_once: int) -> MotionRow | Quarantined:
    """Correct a movie, or take an earlier run's result; what is wrong with it becomes its reason."""
    name = str(work.dataset.rows["movie_name"][index])
    try:
        return (stored_row(work, index) if work.context.resume else None) or _correct(work, index, at_once)
    except InputError as error:
        return Quarantined(name, f"{error.what}. {error.remedy}")
    except UnusableMovie as error:
        return Quarantined(name, str(error))
    except OSError as error:
        return Quarantined(name, f"{error.filename or name}: {error.strerror or error}")


def stored_row(work: Work, index: int) -> MotionRow | None:
    """The result of an earlier run, where all of its files are whole."""
    name = str(work.dataset.rows["movie_name"][index])
    files = files_of(work, name)
    try:
        for column, path in files.items():
            if column != "micrograph_metadata":
                read_header(path)
        record = read_motion(files["micrograph_metadata"])
    except InputError:
        return None
    return row_of(work, index, files, record)


def row_of(work: Work, index: int, files: dict[str, Path], record: MotionRecord) -> MotionRow:
    """What a movie's correction says, for the table of micrographs."""
    params = work.params
    name = str(work.dataset.rows["movie_name"][index])
    dose = params.dose_of(name) or params.early_dose  # without a dose the first step is the early motion
    total = accumulated_motion(record.motion, record.pixel_size, dose, early_dose=params.early_dose)
    return MotionRow(index, {column: work.context.relative(path) for column, path in files.items()}, total, record)


def _correct(work: Work, index: int, at_once: int) -> MotionRow:
    name = str(work.dataset.rows["movie_name"][index])
    corrected, record = correct(work, index, work.open(name), work.context.memory // at_once)
    files = files_of(work, name)
    write_corrected(files, corrected, record, work.params)
    return row_of(work, index, files, record)


def correct(work: Work, index: int, movie: Movie, memory: int) -> tuple[Corrected, MotionRecord]:
    """Correct one opened movie within `memory` bytes. Raises UnusableMovie, and what reading it raises."""
    params, context = work.params, work.context
    row = work.dataset.rows.row(index)
    name, shape = str(row["movie_name"]), work.shapes[int(row["optics_group"])]
    if movie.shape != shape:
        raise UnusableMovie(f"frames are {movie.shape[1]} x {movie.shape[0]} pixels, not {shape[1]} x {shape[0]}")
    frames = FrameRange(movie, *_frame_range(params, movie.n_frames))
    options = _options(work, index, memory=memory, n_frames=frames.n_frames)
    started = time.monotonic()
    with work.workspaces.lend() as workspace:
        corrected = correct_movie(
            frames, options, gain=work.gain, defects=work.defects, device=context.device, workspace=workspace
        )
    pre_exposure = float(row.get("pre_exposure", 0.0)) or params.pre_exposure
    record = MotionRecord(
        corrected.motion,
        movie_name=name,
        pixel_size=options.exposure.pixel_size,
        dose_per_frame=params.dose_of(name),
        pre_exposure=pre_exposure,
        voltage=options.exposure.voltage,
        binning=params.bin,
        start_frame=_frame_range(params, movie.n_frames)[0] + 1,
        gain_name=params.gain or "",
        fit=_report(corrected, time.monotonic() - started),
        patches=_patch_table(corrected),
    )
    if corrected.blank:
        log.warning("%s: %d of its %d frames are blank", name, len(corrected.blank), frames.n_frames)
    if corrected.local is not None and corrected.local.reason:
        log.warning("%s: global alignment only: %s", name, corrected.local.reason)
    return corrected, record


def _frame_range(params: MotioncorrParameters, n_frames: int) -> tuple[int, int]:
    """First and last frame of the sum, from 0."""
    last = params.last_frame if params.last_frame > 0 else n_frames
    return max(params.first_frame - 1, params.throw), min(last, n_frames - params.trunc) - 1


def _options(work: Work, index: int, *, memory: int, n_frames: int) -> MotionOptions:
    params = work.params
    name, shape = (
        str(work.dataset.rows["movie_name"][index]),
        work.shapes[int(work.dataset.rows["optics_group"][index])],
    )
    voltage = work.dataset.optics_of_rows("voltage")[index] if "voltage" in work.dataset.optics else 300.0
    pixel_size = float(work.dataset.optics_of_rows("movie_pixel_size")[index])
    patches = (params.patch_x, params.patch_y) if params.patch_x and params.patch_y else None
    return MotionOptions(
        Exposure(pixel_size, float(voltage), params.dose_of(name)),
        SumOptions(
            binning=params.bin,
            weighted=params.dose_weighting,
            plain=params.save_no_dw or not params.dose_weighting,
            spectrum_box=params.ps_size,
            spectrum_dose=params.ps_dose,
            spectrum_frames=params.ps_frames,
            halves=params.save_even_odd,
            movie=params.save_movies,
        ),
        b_factor=params.b_factor,
        patches=patches,
        group=params.group_of(name),
        local_model=params.local_model,
        iterations=params.max_iterations,
        find_defects=not params.skip_defect_search,
        keep_frames=memory_of(work, shape, n_frames) <= memory,
        seed=work.context.seed,
    )


def _report(corrected: Corrected, seconds: float) -> dict[str, float | str]:
    """What the fit says of itself, for the per-movie STAR file."""
    report: dict[str, float | str] = {"uncertainty_px": corrected.uncertainty, "seconds": seconds}
    report["n_blank_frames"] = len(corrected.blank)
    if corrected.local is not None:
        local = corrected.local
        report |= {"local_residual_px": local.residual, "local_gain": local.gain, "no_local_because": local.reason}
        report["n_patches_rejected"] = int(local.rejected.sum())
    if corrected.motion.coefficients is not None:
        report["local_model"] = "polynomial" if corrected.motion.local_by_frame is None else "spline"
    if corrected.motion.local_by_frame is not None:
        report["polynomial_error_px"] = polynomial_error(corrected.motion)
    return report


def _patch_table(corrected: Corrected) -> Table | None:
    """Each patch's centre, how far it is from the model and by noise would be, whether it was left out of the fit."""
    local = corrected.local
    if local is None:
        return None
    x, y = local.all_centres.T
    columns = {"coordinate_x": x, "coordinate_y": y, "residual_px": local.patch_residuals}
    return Table(columns | {"noise_px": local.patch_errors, "rejected": local.rejected})


def write_corrected(
    files: dict[str, Path], corrected: Corrected, record: MotionRecord, params: MotioncorrParameters
) -> None:
    """Write a movie's results, the STAR file last."""
    sums = corrected.sums
    main = sums.weighted if sums.weighted is not None else sums.plain
    assert main is not None
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_image(files["micrograph_name"], main, sums.pixel_size, float16=params.float16)
    if "micrograph_name_no_dw" in files and sums.plain is not None:
        write_image(files["micrograph_name_no_dw"], sums.plain, sums.pixel_size, float16=params.float16)
    for column, image in (
        ("micrograph_name_even", sums.even),
        ("micrograph_name_odd", sums.odd),
        ("micrograph_movie_name", sums.movie),
    ):
        if column in files and image is not None:
            write_image(files[column], image, sums.pixel_size, float16=params.float16)
    if "power_spectrum_name" in files and sums.spectrum is not None:
        write_image(files["power_spectrum_name"], sums.spectrum, sums.spectrum_pixel_size)
    write_motion(files["micrograph_metadata"], record)
