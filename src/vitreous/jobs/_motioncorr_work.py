"""What is read before any movie is corrected: the list of movies, their sizes, gain reference and defects.

All that is wrong for every movie is found out here, before any work is done.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.defects import read_defects
from vitreous.io.gain import check_gain_shape, read_gain
from vitreous.io.movies import MOVIE_ENDINGS, Movie, open_movie
from vitreous.io.mrc import write_image
from vitreous.io.relion import read_dataset
from vitreous.job import Context
from vitreous.jobs._motioncorr_parameters import MotioncorrParameters
from vitreous.methods.motion.gain_estimation import estimate_gain
from vitreous.runtime.workspace import Workspaces

log = logging.getLogger(__name__)
_DEFAULTS = {"voltage": 300.0, "cs": 2.7, "amplitude_contrast": 0.1}


@dataclass(frozen=True)
class Work:
    """What all movies share. shapes: (ny, nx) that movies must have, by optics group (any where there is none).

    workspaces: the memory that movies in work take, and leave to the next.
    """

    params: MotioncorrParameters
    context: Context
    dataset: Dataset
    gain: torch.Tensor | None
    defects: NDArray[np.bool_] | None
    shapes: dict[int, tuple[int, int]]
    workspaces: Workspaces = field(default_factory=Workspaces)

    def open(self, name: str) -> Movie:
        """A movie, rendered as the parameters say."""
        return open_movie(self.context.project / name, self.params.grouping(name), self.params.eer_upsampling)

    def first(self) -> Movie:
        """The first movie that can be opened (there is one: the shapes came from it)."""
        for name in self.dataset.rows["movie_name"]:
            try:
                return self.open(str(name))
            except InputError:
                continue
        raise AssertionError("no movie can be opened")


def prepare(params: MotioncorrParameters, context: Context, listed: Dataset | None = None) -> Work:
    """Read what is asked for. Raises InputError for what is wrong for every movie.

    listed: movies to take instead of those that params.input names.
    """
    dataset = _with_optics(listed or _list_movies(params, context), params, context)
    path = context.project / params.input
    names = [str(name) for name in dataset.rows["movie_name"]]
    doses = {params.dose_of(name) for name in names}
    if params.dose_weighting and min(doses) <= 0:
        raise InputError("--dose-per-frame", "is not given", "Give it, or switch off --dose-weighting.")
    twice = [name for name, count in Counter(stem_of(name, context) for name in names).items() if count > 1]
    if twice:
        raise InputError(path, f"two movies would be written to {twice[0]}.mrc", "Give each movie its own name.")
    work = Work(params, context, dataset, None, None, {})
    return _with_references(work, _shapes(work))


def prepare_like(
    first: Dataset, shapes: dict[int, tuple[int, int]], params: MotioncorrParameters, context: Context
) -> Work:
    """What another rank has prepared: movies with their optics as it lists them, and `shapes` as it found them."""
    return _with_references(Work(params, context, first, None, None, {}), shapes, is_made=True)


def _with_references(work: Work, shapes: dict[int, tuple[int, int]], *, is_made: bool = False) -> Work:
    """Read gain and defects. is_made: a gain that is estimated was so by another rank."""
    params, shape = work.params, next(iter(shapes.values()))
    gain, defects = _gain(work, shape, is_made=is_made), None
    if gain is not None:
        shapes = {group: (gain.shape[0], gain.shape[1]) for group in shapes}
    if params.defects:
        defects = read_defects(work.context.project / params.defects, next(iter(shapes.values())))
    return replace(work, gain=gain, defects=defects, shapes=shapes)


def _list_movies(params: MotioncorrParameters, context: Context) -> Dataset:
    path = context.project / params.input
    if params.input.endswith(".star"):
        dataset = read_dataset(path)
        if dataset.kind != "movies" or "movie_name" not in dataset.rows:
            raise InputError(path, f"lists {dataset.kind}, not movies", "Import the movies first.")
        if len(dataset) == 0:
            raise InputError(path, "lists no movies", "Give a STAR file with at least one.")
        return dataset
    full = path.absolute()
    found = full.iterdir() if full.is_dir() else Path(full.anchor).glob(str(full.relative_to(full.anchor)))
    files = sorted(one for one in found if one.is_file() and one.name.lower().endswith(MOVIE_ENDINGS))
    if not files:
        raise InputError(
            path, "matches no movies", f"Movies end in {', '.join(MOVIE_ENDINGS)}; put a pattern in quotes."
        )
    return listed_movies(files, context)


def listed_movies(files: Sequence[Path], context: Context) -> Dataset:
    """Movies as a STAR file would list them; what is known of their optics is found later."""
    root = context.project.absolute()
    names = [str(one.relative_to(root)) if one.is_relative_to(root) else str(one) for one in files]
    rows = Table({"movie_name": np.array(names, dtype=object), "optics_group": np.ones(len(names), np.int64)})
    return Dataset("movies", Table({"optics_group_name": ["opticsGroup1"], "optics_group": [1]}), rows)


def _with_optics(dataset: Dataset, params: MotioncorrParameters, context: Context) -> Dataset:
    """The optics table with what was given, what the STAR file says, or what the headers say, in this order."""
    optics = dataset.optics
    columns: dict[str, Any] = {}
    listed = params.input.endswith(".star")
    for name in _DEFAULTS:
        given = getattr(params, name)
        if given is not None:
            columns[name] = float(given)
        elif name not in optics and not listed:
            columns[name] = _DEFAULTS[name]
    if params.pixel_size is not None:
        columns["movie_pixel_size"] = params.pixel_size
    elif "movie_pixel_size" not in optics:
        columns["movie_pixel_size"] = _header_pixel_size(dataset, params, context)
    optics = optics.with_columns(**columns) if columns else optics
    if params.dose_weighting and "voltage" not in optics:
        what = "its optics table has no voltage"
        raise InputError(context.project / params.input, what, "Give --voltage, or import the movies with it.")
    return Dataset(dataset.kind, optics, dataset.rows)


def _header_pixel_size(dataset: Dataset, params: MotioncorrParameters, context: Context) -> float:
    for name in dataset.rows["movie_name"]:
        try:
            size = open_movie(context.project / str(name), params.grouping(str(name)), params.eer_upsampling).pixel_size
        except InputError:
            continue
        if size:
            log.info("pixel size %.4f A, from the header of %s", size, name)
            return float(size)
        break
    what = "does not say the pixel size, nor does the first movie's header"
    raise InputError(context.project / params.input, what, "Give --pixel-size.")


def _shapes(work: Work) -> dict[int, tuple[int, int]]:
    """The commonest frame size of each optics group: movies of another size are not whole, or not of this camera."""
    seen: dict[int, Counter[tuple[int, int]]] = {}
    first: InputError | None = None
    rows = work.dataset.rows
    for name, group in zip(rows["movie_name"], rows["optics_group"], strict=True):
        try:
            movie = work.open(str(name))
        except InputError as error:
            first = first or error
            continue
        seen.setdefault(int(group), Counter())[movie.shape] += 1
    if not seen:
        assert first is not None
        raise first
    return {group: counts.most_common(1)[0][0] for group, counts in seen.items()}


def _gain(work: Work, shape: tuple[int, int], *, is_made: bool) -> torch.Tensor | None:
    """The gain reference as given, or estimated from the movies; None for none."""
    params, context = work.params, work.context
    if not params.gain:
        return _estimated_gain(work, shape, is_made=is_made) if params.estimate_gain else None
    path = context.project / params.gain
    movie = str(work.dataset.rows["movie_name"][0])
    eer = movie.lower().endswith(".eer")
    gain = read_gain(path, params.gain_rotation, params.gain_flip, eer_shape=shape if eer else None)
    check_gain_shape(path, gain, movie, shape)
    return torch.from_numpy(gain)


def _estimated_gain(work: Work, shape: tuple[int, int], *, is_made: bool) -> torch.Tensor | None:
    path = work.context.directory / "gain_estimated.mrc"
    if (work.context.resume or is_made) and path.exists():
        return torch.from_numpy(read_gain(path))
    if is_made:
        return None  # nothing was found
    names = [str(name) for name in work.dataset.rows["movie_name"]]
    chosen = np.unique(np.linspace(0, len(names) - 1, min(work.params.estimate_gain, len(names))).round().astype(int))
    estimate = estimate_gain(_sums(work, [names[index] for index in chosen], shape), shape)
    if estimate is None:
        log.warning("no gain reference is estimated: %d movies show no pattern that stays", len(chosen))
        return None
    write_image(path, estimate.gain, 1.0)
    log.info(
        "gain estimated from %d movies: it varies by %.1f%% between pixels, known to %.1f%%",
        len(chosen), 100 * estimate.spread, 100 * estimate.uncertainty,
    )  # fmt: skip
    return torch.from_numpy(estimate.gain)


def _sums(work: Work, names: list[str], shape: tuple[int, int]) -> Iterator[NDArray[np.float64]]:
    """The sum of all frames of each movie that can be read."""
    for name in names:
        try:
            movie = work.open(name)
            if movie.shape == shape:
                total = np.zeros(shape)
                for number in range(movie.n_frames):
                    total += movie.frames(number, number + 1)[0]
                if np.isfinite(total).all():
                    yield total
                else:
                    log.warning("not used for the gain: %s holds values that are not numbers", name)
        except InputError as error:
            log.warning("not used for the gain: %s", error)


def stem_of(movie: str, context: Context) -> str:
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
