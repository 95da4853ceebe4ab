"""One movie from its file to its particles: what each step makes is handed to the next in memory.

Each lane (a thread) takes a movie all the way. Lanes are one more than may compute at once, so that one of them reads
and decompresses the next movie while the others compute; on a GPU they take turns at it, and the lock of that turn is
one for all processes of the machine.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.coordinates import read_coordinates
from vitreous.io.movies import HeldMovie, Movie
from vitreous.io.mrc import map_image, read_header
from vitreous.jobs._ctf_micrograph import CtfRow, fit_micrograph, stored_fit, task_of, too_coarse
from vitreous.jobs._detectors import make_detector
from vitreous.jobs._extract_parameters import recipe_of as cutting_recipe
from vitreous.jobs._extraction import Stack, extract_one
from vitreous.jobs._motioncorr_movie import (
    MotionRow,
    correct,
    files_of,
    memory_of,
    row_of,
    stored_row,
    write_corrected,
)
from vitreous.jobs._motioncorr_work import Work
from vitreous.jobs._picks import at_least
from vitreous.jobs._preprocess_parameters import Steps
from vitreous.jobs.autopick import Found, picks_of, search_one, write_picks
from vitreous.jobs.ctf import with_fits
from vitreous.jobs.extract import plan_cutting
from vitreous.jobs.motioncorr import micrographs_of
from vitreous.methods.motion.correction import Sums
from vitreous.methods.motion.unusable import UnusableMovie
from vitreous.methods.picking.selection import Cut
from vitreous.runtime.memory import budget, is_out_of_memory
from vitreous.runtime.turn import turn_at

Value = TypeVar("Value")
_POOLED = 50  # micrographs whose scores a threshold made on the way goes by, besides its own
_TRIES = 3  # of a movie for which the GPU has no room
_PAUSE_S = 20.0
_LATER = 48  # bytes a pixel of what follows motion correction, which keeps its large arrays for the next movie


@dataclass(frozen=True)
class Preprocessed:
    """What came of one movie. Steps that were not reached, or not asked for, are None.

    micrograph: one row, with its CTF. cut: the threshold; picks: those that the stack was cut by. left_out: why the
    movie ended early.
    seconds: of each step. finished: when, in seconds since 1970.
    """

    name: str
    motion: MotionRow | None = None
    fit: CtfRow | None = None
    micrograph: Dataset | None = None
    found: Found | None = None
    cut: Cut | None = None
    picks: Table | None = None
    stack: Stack | None = None
    left_out: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    finished: float = 0.0


class _LeftOut(Exception):
    """A step that ends a movie's way, with the reason."""


class AtHand:
    """Images that were just made, by the file they were written to; others are mapped from their files."""

    def __init__(self) -> None:
        self._images: dict[Path, NDArray[Any]] = {}

    def keep(self, path: Path, image: ArrayLike, *, float16: bool) -> None:
        """Hold an image as it will be read from its file."""
        values = np.asarray(image, dtype=np.float32)
        self._images[path] = values.astype(np.float16).astype(np.float32) if float16 else values

    def read(self, path: Path) -> tuple[NDArray[Any], float]:
        """An image (y, x) and its pixel size, as `read_image` gives them."""
        if path in self._images:
            return self._images[path], read_header(path).pixel_size
        return map_image(path)


class Stream:
    """The way of every movie. at_once: movies that are computed at a time; lanes: those that are on their way."""

    def __init__(self, steps: Steps, work: Work, n_movies: int | None = None) -> None:
        self.steps, self.work, self.context = steps, work, work.context
        self.detector = make_detector(steps.pick, self.context) if steps.pick else None
        self._cut = cutting_recipe(steps.extract) if steps.extract else None
        self.at_once, self.lanes = _plan(work, n_movies)
        self.threads = max(1, self.context.threads // self.at_once)
        self._computing = threading.Semaphore(self.at_once if self.context.device.type == "cpu" else self.lanes)
        self._scores: deque[NDArray[np.float64]] = deque(maxlen=_POOLED)

    def start_lane(self) -> None:
        """To be called in each lane's thread."""
        torch.set_num_threads(self.threads)

    def process(self, work: Work, index: int) -> Preprocessed:
        """Take a movie all the way; what is wrong with it ends its way alone."""
        done = Preprocessed(str(work.dataset.rows["movie_name"][index]))
        at_hand, seconds = AtHand(), done.seconds
        try:
            motion = stored_row(work, index) if self.context.resume else None
            if motion is not None:
                done = replace(done, motion=motion)
            else:
                with _timed(seconds, "reading"):
                    movie = _attempted("", lambda: self._opened(work, done.name))
                with self._computing, _timed(seconds, "motion"):
                    done = replace(done, motion=_attempted("", lambda: self._corrected(work, index, movie, at_hand)))
                del movie
            with self._computing:
                for step in (self._fitted, self._picked, self._extracted):
                    done = step(work, done, at_hand)
        except _LeftOut as error:
            done = replace(done, left_out=str(error))
        return replace(done, finished=time.time())

    def _opened(self, work: Work, name: str) -> Movie:
        """The movie, read and decompressed where the plan has room for it, else to be read frame by frame."""
        movie = work.open(name)
        return HeldMovie(movie) if self.lanes > self.at_once else movie

    def _corrected(self, work: Work, index: int, movie: Movie, at_hand: AtHand) -> MotionRow:
        params, name = self.steps.motion, str(work.dataset.rows["movie_name"][index])
        memory = self.context.memory // self.at_once

        def at_device() -> Any:
            with turn_at(self.context.device, f"vitreous preprocess in {self.context.directory}"):
                return correct(work, index, movie, memory)

        corrected, record = _with_patience(at_device)
        files = files_of(work, name)
        write_corrected(files, corrected, record, params)
        for column, image in _images(corrected.sums).items():
            if column in files and image is not None:
                at_hand.keep(files[column], image, float16=params.float16 and column != "power_spectrum_name")
        return row_of(work, index, files, record)

    def _fitted(self, work: Work, done: Preprocessed, at_hand: AtHand) -> Preprocessed:
        params, context = self.steps.ctf, self.context
        assert done.motion is not None
        micrograph = micrographs_of(work, [done.motion])
        task = task_of(micrograph, 0, params, context)
        with _timed(done.seconds, "CTF"):
            fit = (stored_fit(task, params, context) if context.resume else None) or _attempted(
                "CTF: ", lambda: fit_micrograph(task, params, context, at_hand.read)
            )
        if reason := too_coarse(fit, params):
            raise _LeftOut(f"CTF: {reason}")
        return replace(done, fit=fit, micrograph=with_fits(micrograph, [fit], params))

    def _picked(self, work: Work, done: Preprocessed, at_hand: AtHand) -> Preprocessed:
        detector, micrograph = self.detector, done.micrograph
        if detector is None or micrograph is None:
            return done
        with _timed(done.seconds, "picking"):
            found = _attempted(
                "picking: ",
                lambda: search_one(micrograph, 0, detector, self.context, at_hand.read),
            )
            cut = self._cut_so_far(found)
            picks = picks_of(found, cut)
            stored = Path(f"{found.place}_autopick.star")
            if self.context.resume and stored.exists():
                picks = _attempted("picking: ", lambda: read_coordinates(stored))
            elif self._cut is None:
                _attempted("picking: ", lambda: write_picks(found, picks))
            return replace(done, found=found, cut=cut, picks=picks)

    def _extracted(self, work: Work, done: Preprocessed, at_hand: AtHand) -> Preprocessed:
        if self._cut is None or done.picks is None:
            return done
        with _timed(done.seconds, "extraction"):
            return self.cut(done, done.picks, at_hand)

    def cut(self, done: Preprocessed, picks: Table, at_hand: AtHand) -> Preprocessed:
        """Cut particles at these picks. The file of picks is written last: where it is, the stack belongs to it."""
        recipe, params, found = self._cut, self.steps.extract, done.found
        assert recipe is not None
        assert params is not None
        assert done.micrograph is not None
        assert found is not None
        wanted = at_least(picks, params.min_score)
        tasks, _ = plan_cutting(done.micrograph, {found.name: wanted}, self.context)
        memory = self.context.memory // (2 * self.lanes)
        stack = Stack(Table(), 0)
        if tasks:  # none where there are no picks
            task, context = tasks[0], self.context
            stack = _attempted("extraction: ", lambda: extract_one(task, recipe, params, context, memory, at_hand.read))
        _attempted("extraction: ", lambda: write_picks(found, picks))
        return replace(done, picks=picks, stack=stack)

    def settle(self, done: Preprocessed, cut: Cut) -> Preprocessed:
        """Bring picks and particles to the threshold that all micrographs decided; what is right already stays."""
        found = done.found
        if found is None or done.picks is None:
            return done
        picks = picks_of(found, cut)
        same = all(np.array_equal(picks[name], done.picks[name]) for name in ("coordinate_x", "coordinate_y"))
        if same:
            return replace(done, cut=cut)
        # A run that is killed in between must not take the old stack for one of the new picks.
        Path(f"{found.place}_autopick.star").unlink(missing_ok=True)
        Path(f"{found.place}.mrcs").unlink(missing_ok=True)
        done = replace(done, picks=picks, stack=None, cut=cut)
        try:
            if self._cut is not None:
                return self.cut(done, picks, AtHand())
            _attempted("picking: ", lambda: write_picks(found, picks))
        except _LeftOut as error:
            return replace(done, left_out=str(error))
        return done

    def _cut_so_far(self, found: Found) -> Cut:
        """Where to cut this micrograph's scores, from its own and from those of micrographs done before."""
        assert self.detector is not None
        scores = found.candidates.scores
        before = list(self._scores)
        self._scores.append(scores)
        others = [np.concatenate(before)] if before else []
        return self.detector.cut([scores, *others], found.candidates.noise, None)[0]


def _images(sums: Sums) -> dict[str, torch.Tensor | None]:
    """What was summed, by the column of its file."""
    return {
        "micrograph_name": sums.weighted if sums.weighted is not None else sums.plain,
        "micrograph_name_no_dw": sums.plain,
        "power_spectrum_name": sums.spectrum,
    }


def _plan(work: Work, n_movies: int | None) -> tuple[int, int]:
    """Movies computed at once, as `motioncorr` does (on a GPU one), and movies on their way."""
    context = work.context
    needed = max(memory_of(work, shape) for shape in work.shapes.values())
    movie = work.first()
    held = max(movie.path.stat().st_size, 2 * movie.n_frames * movie.shape[0] * movie.shape[1])
    if context.device.type != "cpu":
        return 1, max(2, min(context.threads, budget(0.0) // (needed + held)))
    most = min(context.threads, n_movies or context.threads)
    at_once = max(1, min(most, context.memory // max(needed, 1)))
    has_room = context.memory - at_once * needed >= (at_once + 1) * held
    return at_once, at_once + has_room


def _attempted(step: str, work: Callable[[], Value]) -> Value:
    """work(), or the reason why this movie's way ends here."""
    try:
        return work()
    except InputError as error:
        reason = f"{error.what}. {error.remedy}" if not step else str(error)
        raise _LeftOut(f"{step}{reason}") from error
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise _LeftOut(f"{step}{place}{error.strerror or error}") from error
    except UnusableMovie as error:
        raise _LeftOut(str(error)) from error
    except ValueError as error:
        if not step:
            raise  # of motion correction's only UnusableMovie is the movie's fault
        raise _LeftOut(f"{step}{error}") from error


def _with_patience(work: Callable[[], Value]) -> Value:
    """work(); where a GPU is full, that is of programs that know nothing of our turns: again, after a while."""
    for _ in range(_TRIES - 1):
        try:
            return work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            time.sleep(_PAUSE_S)
    return work()


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[step] = seconds.get(step, 0.0) + time.monotonic() - start
