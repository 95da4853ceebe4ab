"""Bring movies, micrographs, particles or picks into a project."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset, Kind
from vitreous.data.table import Table
from vitreous.io.movies import open_movie
from vitreous.io.mrc import read_header
from vitreous.io.relion import write_dataset
from vitreous.job import Context, Job, JobParameters, Outputs, Quarantined, parameter
from vitreous.jobs._import_coordinates import import_coordinates
from vitreous.jobs._import_particles import import_particles, read_star_of
from vitreous.runtime.progress import track

log = logging.getLogger(__name__)

_NODES: dict[Kind, str] = {
    "movies": "MicrographMovieGroupMetadata.star.relion",
    "micrographs": "MicrographGroupMetadata.star.relion",
}
_PIXEL_TOLERANCE = 0.01  # relative; header values are often rounded
_UNSET_PIXEL_SIZE = 1.0  # A: what programs write that do not know it


class ImportParameters(JobParameters):
    """What `import` takes."""

    movies: str = parameter(
        "", help="movies: a pattern such as 'Movies/*.tiff', or a STAR file", aliases=("fn_in_raw",)
    )
    micrographs: str = parameter("", help="motion-corrected micrographs: a pattern or a STAR file")
    particles: str = parameter("", help="extracted particles: a STAR file, or cryoSPARC's .cs file")
    coordinates: str = parameter(
        "", help="picks, with --micrographs: cryoSPARC's .cs, a list of STAR or .box files, or particles"
    )
    flip_y: bool = parameter(
        False, help="with a .cs file: turn picks upside down (the micrographs here are from TIFF or EER movies)",
        advanced=True,
    )  # fmt: skip
    passthrough: str = parameter("", help="cryoSPARC's passthrough .cs file, joined by uid", advanced=True)
    pixel_size: float | None = parameter(
        None, help="pixel size of movies or micrographs (default: the headers')", unit="A", aliases=("angpix",), gt=0
    )
    voltage: float = parameter(300.0, help="acceleration voltage", unit="kV", aliases=("kV",), gt=0)
    cs: float = parameter(2.7, help="spherical aberration", unit="mm", aliases=("Cs",), ge=0)
    amplitude_contrast: float = parameter(0.1, help="fraction of amplitude contrast", aliases=("Q0",), ge=0, le=1)
    optics_group_name: str = parameter("opticsGroup1", help="name of the optics group")
    mtf: str = parameter("", help="STAR file with the detector's MTF", aliases=("optics_group_mtf", "fn_mtf"))
    beam_tilt_x: float = parameter(0.0, help="beam tilt in x", unit="mrad", aliases=("beamtilt_x",), advanced=True)
    beam_tilt_y: float = parameter(0.0, help="beam tilt in y", unit="mrad", aliases=("beamtilt_y",), advanced=True)
    particles_optics_group_name: str = parameter(
        "", help="rename the particles' optics group (where they have one)", advanced=True
    )


@dataclass(frozen=True)
class _Opened:
    """What a file's header says: frames, (y, x), pixel size in A if it does."""

    n_frames: int
    shape: tuple[int, int]
    pixel_size: float | None


class Import(Job):
    """List movies, micrographs or particles with their optics group, after opening every file once."""

    name = "import"
    folder = "Import"
    relion_type = "relion.import.movies"
    help = "bring movies, micrographs, particles or picks into the project"
    Parameters = ImportParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write movies.star, micrographs.star, particles.star or coordinates.star; what does not open is left out.

        Raises InputError where nothing matches, nothing opens, or the pixel size is not known.
        """
        if params.coordinates:
            return import_coordinates(params, context)
        given = [kind for kind in (*_NODES, "particles") if getattr(params, kind)]
        if len(given) != 1:
            raise InputError("import", "needs one of --movies, --micrographs, --particles", "Give exactly one.")
        kind = given[0]
        if kind == "particles":
            return import_particles(params, context)
        source = getattr(params, kind)
        if source.endswith(".star"):
            dataset = read_star_of(context.project / source, kind)
            opened, quarantined = _open_all(dataset.rows[_name_column(kind)].tolist(), kind, context.project)
            keep = np.isin(dataset.rows[_name_column(kind)].astype(str), list(opened))
            dataset = dataset.take(keep)
        else:
            opened, quarantined = _open_all(_matches(source, context), kind, context.project)
            dataset = _list_files(kind, list(opened), _pixel_size(params, opened, source), params, context)
        warnings = _clashes(dataset, opened, kind)
        return _write(dataset, context, quarantined, opened, warnings)


def _name_column(kind: Kind) -> str:
    return "movie_name" if kind == "movies" else "micrograph_name"


def _matches(pattern: str, context: Context) -> list[str]:
    """Files matching a pattern, relative to the project where they lie within it."""
    full = (context.project / pattern).absolute()
    root = Path(full.anchor)
    files = sorted(path for path in root.glob(str(full.relative_to(root))) if path.is_file())
    if not files:
        raise InputError(context.project / pattern, "matches no file", "Check the pattern; put it in quotes.")
    return [_project_name(path, context) for path in files]


def _project_name(path: Path, context: Context) -> str:
    try:
        # Not resolved: a link in the project to movies elsewhere is the usual way, its name is what counts.
        return str(path.absolute().relative_to(context.project.absolute()))
    except ValueError:
        return str(path.absolute())


def _open_all(names: list[str], kind: Kind, project: Path) -> tuple[dict[str, _Opened], list[Quarantined]]:
    opened: dict[str, _Opened] = {}
    quarantined = []
    open_one: Callable[[Path], _Opened] = _open_movie if kind == "movies" else _open_micrograph
    for name in track(names, f"opening {kind}"):
        try:
            opened[name] = open_one(project / name)
        except InputError as error:
            log.warning("left out: %s", error)
            quarantined.append(Quarantined(name, str(error)))
    if not opened:
        first = quarantined[0].reason if quarantined else f"there are no {kind}"
        raise InputError(f"import --{kind}", f"none of {len(names)} files opens; the first: {first}", "Mend them.")
    return opened, quarantined


def _open_movie(path: Path) -> _Opened:
    movie = open_movie(path, eer_grouping=1)
    return _Opened(movie.n_frames, movie.shape, movie.pixel_size)


def _open_micrograph(path: Path) -> _Opened:
    if path.suffix.lower() in (".tif", ".tiff"):
        movie = open_movie(path)
        found = _Opened(movie.n_frames, movie.shape, movie.pixel_size)
    else:
        header = read_header(path)
        found = _Opened(header.shape[0], (header.shape[1], header.shape[2]), header.pixel_size or None)
    if found.n_frames != 1:
        raise InputError(path, f"holds {found.n_frames} images, not one micrograph", "Import it with --movies.")
    return found


def _pixel_size(params: Any, opened: dict[str, _Opened], source: str) -> float:
    if params.pixel_size is not None:
        return float(params.pixel_size)
    sizes = np.array([one.pixel_size for one in opened.values() if one.pixel_size is not None])
    if not len(sizes):
        raise InputError(source, "files do not say their pixel size", "Give --pixel-size.")
    if np.ptp(sizes) > _PIXEL_TOLERANCE * sizes.min():
        what = f"headers disagree on the pixel size ({sizes.min():.4f} to {sizes.max():.4f} A)"
        raise InputError(source, what, "Give --pixel-size, or import the sets apart.")
    size = float(np.median(sizes))
    log.info("pixel size %.4f A, from the headers", size)
    return size


def _list_files(kind: Kind, names: list[str], pixel_size: float, params: Any, context: Context) -> Dataset:
    """Columns in RELION's order."""
    optics: dict[str, list[Any]] = {"optics_group_name": [params.optics_group_name], "optics_group": [1]}
    if params.mtf:
        if not (context.project / params.mtf).is_file():
            raise InputError(context.project / params.mtf, "is not there", "Check --mtf.")
        optics["mtf_file"] = [params.mtf]
    optics["movie_pixel_size" if kind == "movies" else "micrograph_pixel_size"] = [pixel_size]
    if kind == "micrographs":
        optics["movie_pixel_size"] = [pixel_size]
    optics |= {"voltage": [float(params.voltage)], "cs": [float(params.cs)]}
    optics["amplitude_contrast"] = [float(params.amplitude_contrast)]
    if params.beam_tilt_x or params.beam_tilt_y:
        optics |= {"beam_tilt_x": [params.beam_tilt_x], "beam_tilt_y": [params.beam_tilt_y]}
    rows = Table({_name_column(kind): np.array(names, dtype=object), "optics_group": np.ones(len(names), np.int64)})
    return Dataset(kind, Table(optics), rows)


def _clashes(dataset: Dataset, opened: dict[str, _Opened], kind: Kind) -> list[str]:
    """What a user should be told: headers with another pixel size, files of another shape."""
    warnings = []
    names = dataset.rows[_name_column(kind)].tolist()
    column = next((c for c in ("micrograph_pixel_size", "movie_pixel_size") if c in dataset.optics), None)
    if column is not None:
        stated = dataset.optics_of_rows(column)
        other = [
            (name, opened[name].pixel_size, size)
            for name, size in zip(names, stated.tolist(), strict=True)
            if _differs(opened[name].pixel_size, size)
        ]
        if other:
            name, header, size = other[0]
            warnings.append(
                f"{len(other)} of {len(names)} headers give another pixel size than {size:.4f} A "
                f"(the first, {name}: {header:.4f} A); {size:.4f} A is used"
            )
    shapes = {opened[name].shape for name in names}
    if len(shapes) > 1:
        listed = ", ".join(f"{nx} x {ny}" for ny, nx in sorted(shapes))
        warnings.append(f"{kind} come in {len(shapes)} sizes ({listed} pixels)")
    for warning in warnings:
        log.warning("%s", warning)
    return warnings


def _differs(header: float | None, stated: float) -> bool:
    if header is None or header == _UNSET_PIXEL_SIZE:
        return False
    return abs(header - stated) > _PIXEL_TOLERANCE * stated


def _write(
    dataset: Dataset,
    context: Context,
    quarantined: list[Quarantined],
    opened: dict[str, _Opened],
    warnings: list[str],
) -> Outputs:
    target = context.directory / f"{dataset.kind}.star"
    write_dataset(target, dataset)
    metrics: dict[str, float | int | str] = {f"n_{dataset.kind}": len(dataset), "n_left_out": len(quarantined)}
    frames = np.array([one.n_frames for one in opened.values()])
    if dataset.kind == "movies":
        metrics |= {"frames_min": int(frames.min()), "frames_max": int(frames.max())}
    shape = next(iter(opened.values())).shape
    what = f"{len(dataset)} {dataset.kind} of {shape[1]} x {shape[0]} pixels"
    if dataset.kind == "movies":
        span = f"{frames.min()}" if frames.min() == frames.max() else f"{frames.min()}-{frames.max()}"
        what += f", {span} frames"
    left_out = f"; {len(quarantined)} did not open and were left out" if quarantined else ""
    return Outputs(
        nodes={context.relative(target): _NODES[dataset.kind]},
        metrics=metrics,
        quarantined=quarantined,
        summary="; ".join([what + left_out, *warnings]),
    )
