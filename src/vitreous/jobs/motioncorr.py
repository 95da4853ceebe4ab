"""Correct beam-induced motion: movies in, dose-weighted micrographs, power spectra and motion tracks out."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.motion import AccumulatedMotion, accumulated_motion
from vitreous.data.table import Table
from vitreous.io.defects import read_defects
from vitreous.io.gain import check_gain_shape, read_gain
from vitreous.io.motion import MotionRecord, read_motion, write_motion
from vitreous.io.movies import Movie, open_movie
from vitreous.io.mrc import read_header, write_image
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context, Job, JobParameters, Outputs, Quarantined, parameter
from vitreous.methods.motion.correct import Corrected, MotionOptions, correct_movie, memory_needed
from vitreous.methods.motion.correction import Exposure, SumOptions, binned_shape
from vitreous.methods.motion.frames import FrameRange, UnusableMovie
from vitreous.runtime.progress import track

log = logging.getLogger(__name__)


class MotioncorrParameters(JobParameters):
    """What `motioncorr` takes."""

    input: str = parameter(help="STAR file of movies", aliases=("i",))
    dose_per_frame: float = parameter(
        0.0, help="exposure of each frame (of each fraction for EER); needed for dose weighting", unit="e/A^2", ge=0
    )
    pre_exposure: float = parameter(
        0.0, help="exposure before the first frame", unit="e/A^2", aliases=("preexposure",), ge=0
    )
    gain: str | None = parameter(
        None, help="gain reference (.mrc, .tif, .gain), multiplied into the frames", aliases=("gainref",)
    )
    gain_rotation: int = parameter(
        0, help="rotate the gain reference by this many times 90 degrees clockwise", aliases=("gain_rot",), ge=0, le=3
    )
    gain_flip: int = parameter(0, help="then flip it: 1 upside down, 2 left to right", ge=0, le=2)
    defects: str | None = parameter(
        None, help="defect map (non-zero = bad) or list of x y width height", aliases=("defect_file",)
    )
    skip_defect_search: bool = parameter(
        False, help="do not look for hot and dead pixels", aliases=("skip_defect",), advanced=True
    )
    patch_x: int = parameter(0, help="patches across x for local motion (0: automatic, 1: none)", ge=0, le=20)
    patch_y: int = parameter(0, help="patches across y for local motion (0: automatic, 1: none)", ge=0, le=20)
    bin: float = parameter(1.0, help="Fourier binning of the micrographs", aliases=("bin_factor",), ge=1, le=16)
    b_factor: float = parameter(
        150.0, help="B factor that weights frequencies in the alignment", unit="px^2", aliases=("bfactor",), gt=0
    )
    dose_weighting: bool = parameter(True, help="weight frequencies by radiation damage")
    save_no_dw: bool = parameter(False, help="write the sum without dose weighting, too", aliases=("save_noDW",))
    group_frames: int = parameter(1, help="frames summed before their motion is measured", ge=1, advanced=True)
    first_frame: int = parameter(1, help="first frame used", aliases=("first_frame_sum",), ge=1, advanced=True)
    last_frame: int = parameter(
        0, help="last frame used (0: the movie's last)", aliases=("last_frame_sum",), ge=-1, advanced=True
    )
    eer_grouping: int = parameter(40, help="raw frames summed to a fraction (EER)", ge=1)
    eer_upsampling: int = parameter(1, help="grid of EER movies: 1 for 4K, 2 for 8K", ge=1, le=2)
    ps_size: int = parameter(512, help="side of the power spectrum (0: write none)", unit="px", ge=0, le=4096)
    ps_dose: float = parameter(
        4.0, help="exposure summed before a power spectrum is taken", unit="e/A^2", gt=0, advanced=True
    )
    early_dose: float = parameter(
        4.0, help="exposure that separates early from late motion", unit="e/A^2",
        aliases=("dose_motionstats_cutoff",), gt=0, advanced=True,
    )  # fmt: skip
    max_iterations: int = parameter(10, help="iterations of a fit at most", aliases=("max_iter",), ge=1, advanced=True)
    float16: bool = parameter(False, help="write micrographs in half precision (MRC mode 12)")


class Motioncorr(Job):
    """Gain and defects, whole-frame and local alignment, interpolation, dose-weighted sum, power spectrum."""

    name = "motioncorr"
    folder = "MotionCorr"
    relion_type = "relion.motioncorr.own"
    help = "correct the motion of movies and sum their frames"
    Parameters = MotioncorrParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write corrected_micrographs.star and, per movie, .mrc, .star, _PS.mrc and on request _noDW.mrc."""
        work = _prepare(params, context)
        start = time.monotonic()
        results = list(track(_correct_all(work), "motion correction", len(work.dataset)))
        failed = [result for result in results if isinstance(result, Quarantined)]
        for item in failed:
            log.warning("%s left out: %s", item.item, item.reason)
        done = [result for result in results if isinstance(result, _Row)]
        if not done:
            what = f"none of its {len(results)} movies could be used; the first: {failed[0].reason}"
            raise InputError(context.project / params.input, what, "Check the movies.")
        output = context.directory / "corrected_micrographs.star"
        write_dataset(output, _micrographs(work, done))
        metrics = _metrics(done, failed) | {"seconds_per_movie": (time.monotonic() - start) / len(results)}
        return Outputs(
            nodes={context.relative(output): "MicrographGroupMetadata.star.relion.motioncorr"},
            metrics=metrics,
            quarantined=failed,
            summary=_summary(done, failed),
        )


@dataclass(frozen=True)
class _Work:
    """What all movies share. shapes: (ny, nx) that movies must have, by optics group (any where there is none)."""

    params: MotioncorrParameters
    context: Context
    dataset: Dataset
    gain: torch.Tensor | None
    defects: NDArray[np.bool_] | None
    shapes: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class _Row:
    """What one movie's correction says."""

    index: int
    files: dict[str, str]  # column -> path relative to the project
    motion: AccumulatedMotion
    record: MotionRecord


def _prepare(params: MotioncorrParameters, context: Context) -> _Work:
    """Read what is asked for and find out all that is wrong for every movie before any work is done."""
    path = context.project / params.input
    dataset = read_dataset(path)
    if dataset.kind != "movies" or "movie_name" not in dataset.rows:
        raise InputError(path, f"lists {dataset.kind}, not movies", "Import the movies first.")
    if len(dataset) == 0:
        raise InputError(path, "lists no movies", "Give a STAR file with at least one.")
    if "movie_pixel_size" not in dataset.optics:
        raise InputError(path, "its optics table has no pixel size", "Import the movies with their pixel size.")
    if params.dose_weighting and params.dose_per_frame <= 0:
        raise InputError("--dose-per-frame", "is not given", "Give it, or switch off --dose-weighting.")
    if params.dose_weighting and "voltage" not in dataset.optics:
        raise InputError(path, "its optics table has no voltage", "Import the movies with their voltage.")
    names = [_stem(str(name), context) for name in dataset.rows["movie_name"]]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(path, f"two movies would be written to {twice[0]}.mrc", "Give each movie its own name.")
    shapes = _shapes(dataset, params, context)
    gain, defects = None, None
    if params.gain:
        shape = next(iter(shapes.values()))
        gain = _gain(dataset, params, context, shape)
        shapes = {group: (gain.shape[0], gain.shape[1]) for group in shapes}
    if params.defects:
        defects = read_defects(context.project / params.defects, next(iter(shapes.values())))
    return _Work(params, context, dataset, gain, defects, shapes)


def _open(name: str, params: MotioncorrParameters, context: Context) -> Movie:
    return open_movie(context.project / name, params.eer_grouping, params.eer_upsampling)


def _shapes(dataset: Dataset, params: MotioncorrParameters, context: Context) -> dict[int, tuple[int, int]]:
    """The commonest frame size of each optics group: movies of another size are not whole, or not of this camera."""
    seen: dict[int, Counter[tuple[int, int]]] = {}
    first: InputError | None = None
    for name, group in zip(dataset.rows["movie_name"], dataset.rows["optics_group"], strict=True):
        try:
            movie = _open(str(name), params, context)
        except InputError as error:
            first = first or error
            continue
        seen.setdefault(int(group), Counter())[movie.shape] += 1
    if not seen:
        assert first is not None
        raise first
    return {group: counts.most_common(1)[0][0] for group, counts in seen.items()}


def _gain(dataset: Dataset, params: MotioncorrParameters, context: Context, shape: tuple[int, int]) -> torch.Tensor:
    assert params.gain is not None
    path = context.project / params.gain
    movie = str(dataset.rows["movie_name"][0])
    eer = movie.lower().endswith(".eer")
    gain = read_gain(path, params.gain_rotation, params.gain_flip, eer_shape=shape if eer else None)
    check_gain_shape(path, gain, movie, shape)
    return torch.from_numpy(gain)


def _stem(movie: str, context: Context) -> str:
    """Where a movie's results go, without ending: its path below the job that made it, under this job's directory."""
    path = Path(movie)
    if path.is_absolute():
        try:
            path = path.relative_to(context.project.resolve())
        except ValueError:
            path = Path("Movies") / path.name
    below = re.sub(r"^[^/]+/job\d+/", "", str(path))
    parts = [part for part in Path(below).parts if part not in ("..", ".")]
    name = re.sub(r"\.(mrcs?|st|tiff?|eer)(\.gz)?$", "", parts[-1], flags=re.IGNORECASE)
    return str(Path(*parts[:-1], name))


def _files(work: _Work, movie: str) -> dict[str, Path]:
    """Column name -> file of a movie's results."""
    params, stem = work.params, work.context.directory / _stem(movie, work.context)
    base = stem.name
    files = {"micrograph_name": stem.with_name(f"{base}.mrc")}
    if params.save_no_dw and params.dose_weighting:
        files["micrograph_name_no_dw"] = stem.with_name(f"{base}_noDW.mrc")
    if params.ps_size:
        files["power_spectrum_name"] = stem.with_name(f"{base}_PS.mrc")
    # Written last: where it is, the others are.
    files["micrograph_metadata"] = stem.with_name(f"{base}.star")
    return files


def _correct_all(work: _Work) -> Iterator[_Row | Quarantined]:
    """Results in the order of the table: as many movies at once as threads and memory allow."""
    context, n = work.context, len(work.dataset)
    at_once = 1
    if context.device.type == "cpu":
        needed = max(_memory(work, shape) for shape in work.shapes.values())
        at_once = max(1, min(context.threads, n, context.memory // max(needed, 1)))
    threads = max(1, context.threads // at_once)
    before = torch.get_num_threads()
    executor = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads,))
    try:
        yield from executor.map(lambda index: _attempt(work, index, at_once), range(n))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


def _memory(work: _Work, shape: tuple[int, int], n_frames: int | None = None) -> int:
    if n_frames is None:
        n_frames = _open_first(work).n_frames
    return memory_needed(shape, n_frames, work.params.b_factor)


def _open_first(work: _Work) -> Movie:
    """The first movie that can be opened (there is one: _shapes has seen it)."""
    for name in work.dataset.rows["movie_name"]:
        try:
            return _open(str(name), work.params, work.context)
        except InputError:
            continue
    raise AssertionError("no movie can be opened")


def _attempt(work: _Work, index: int, at_once: int) -> _Row | Quarantined:
    name = str(work.dataset.rows["movie_name"][index])
    try:
        return (_stored(work, index) if work.context.resume else None) or _correct(work, index, at_once)
    except InputError as error:
        return Quarantined(name, f"{error.what}. {error.remedy}")
    except UnusableMovie as error:
        return Quarantined(name, str(error))


def _stored(work: _Work, index: int) -> _Row | None:
    """The result of an earlier run, where all of its files are whole."""
    name = str(work.dataset.rows["movie_name"][index])
    files = _files(work, name)
    try:
        for column, path in files.items():
            if column != "micrograph_metadata":
                read_header(path)
        record = read_motion(files["micrograph_metadata"])
    except InputError:
        return None
    return _row(work, index, files, record)


def _row(work: _Work, index: int, files: dict[str, Path], record: MotionRecord) -> _Row:
    params = work.params
    dose = params.dose_per_frame or params.early_dose  # without a dose the first step is the early motion
    total = accumulated_motion(record.motion, record.pixel_size, dose, early_dose=params.early_dose)
    return _Row(index, {column: work.context.relative(path) for column, path in files.items()}, total, record)


def _correct(work: _Work, index: int, at_once: int) -> _Row:
    params, context = work.params, work.context
    row = work.dataset.rows.row(index)
    name, shape = str(row["movie_name"]), work.shapes[int(row["optics_group"])]
    movie = _open(name, params, context)
    if movie.shape != shape:
        raise UnusableMovie(f"frames are {movie.shape[1]} x {movie.shape[0]} pixels, not {shape[1]} x {shape[0]}")
    last = params.last_frame if params.last_frame > 0 else movie.n_frames
    frames = FrameRange(movie, params.first_frame - 1, last - 1)
    options = _options(work, index, memory=context.memory // at_once, n_frames=frames.n_frames)
    started = time.monotonic()
    corrected = correct_movie(frames, options, gain=work.gain, defects=work.defects, device=context.device)
    pre_exposure = float(row.get("pre_exposure", 0.0)) or params.pre_exposure
    record = MotionRecord(
        corrected.motion,
        movie_name=name,
        pixel_size=options.exposure.pixel_size,
        dose_per_frame=params.dose_per_frame,
        pre_exposure=pre_exposure,
        voltage=options.exposure.voltage,
        binning=params.bin,
        start_frame=params.first_frame,
        gain_name=params.gain or "",
        fit=_report(corrected, time.monotonic() - started),
    )
    files = _files(work, name)
    _write(files, corrected, record, params)
    return _row(work, index, files, record)


def _options(work: _Work, index: int, *, memory: int, n_frames: int) -> MotionOptions:
    params = work.params
    shape = work.shapes[int(work.dataset.rows["optics_group"][index])]
    voltage = work.dataset.optics_of_rows("voltage")[index] if "voltage" in work.dataset.optics else 300.0
    pixel_size = float(work.dataset.optics_of_rows("movie_pixel_size")[index])
    patches = (params.patch_x, params.patch_y) if params.patch_x and params.patch_y else None
    return MotionOptions(
        Exposure(pixel_size, float(voltage), params.dose_per_frame),
        SumOptions(
            binning=params.bin,
            weighted=params.dose_weighting,
            plain=params.save_no_dw or not params.dose_weighting,
            spectrum_box=params.ps_size,
            spectrum_dose=params.ps_dose,
        ),
        b_factor=params.b_factor,
        patches=patches,
        group=params.group_frames,
        iterations=params.max_iterations,
        find_defects=not params.skip_defect_search,
        keep_frames=memory_needed(shape, n_frames, params.b_factor) <= memory,
        seed=work.context.seed,
    )


def _report(corrected: Corrected, seconds: float) -> dict[str, float | str]:
    """What the fit says of itself, for the per-movie STAR file."""
    report: dict[str, float | str] = {"uncertainty_px": corrected.uncertainty, "seconds": seconds}
    if corrected.local is not None:
        local = corrected.local
        report |= {"local_residual_px": local.residual, "local_gain": local.gain, "no_local_because": local.reason}
    return report


def _write(files: dict[str, Path], corrected: Corrected, record: MotionRecord, params: MotioncorrParameters) -> None:
    sums = corrected.sums
    main = sums.weighted if sums.weighted is not None else sums.plain
    assert main is not None
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_image(files["micrograph_name"], main, sums.pixel_size, float16=params.float16)
    if "micrograph_name_no_dw" in files and sums.plain is not None:
        write_image(files["micrograph_name_no_dw"], sums.plain, sums.pixel_size, float16=params.float16)
    if "power_spectrum_name" in files and sums.spectrum is not None:
        write_image(files["power_spectrum_name"], sums.spectrum, sums.spectrum_pixel_size)
    write_motion(files["micrograph_metadata"], record)


def _micrographs(work: _Work, done: list[_Row]) -> Dataset:
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


def _metrics(done: list[_Row], failed: list[Quarantined]) -> dict[str, float | int | str]:
    fits = [row.record.fit for row in done]
    return {
        "n_movies": len(done),
        "n_left_out": len(failed),
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


def _summary(done: list[_Row], failed: list[Quarantined]) -> str:
    total = np.array([row.motion.total for row in done])
    local = sum(row.record.motion.coefficients is not None for row in done)
    text = f"{len(done)} movies moved {np.median(total):.1f} A (median, up to {total.max():.1f}); "
    text += f"{local} with local motion"
    return text + (f"; {len(failed)} left out" if failed else "")
