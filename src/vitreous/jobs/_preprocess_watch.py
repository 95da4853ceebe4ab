"""A folder that a microscope writes to: which movies in it are complete, and a stream that takes them as they come."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.movies import MOVIE_ENDINGS, open_movie
from vitreous.job import Context
from vitreous.jobs._motioncorr_work import Work, listed_movies, prepare, prepare_like, stem_of
from vitreous.jobs._preprocess_parameters import Steps
from vitreous.jobs._preprocess_stream import Preprocessed, Stream
from vitreous.runtime.open_queue import OpenQueue

log = logging.getLogger(__name__)
_LOOK_S = 2.0  # between looks at the folder, at most
_PATIENCE = 6  # times the age: after so long a movie that cannot be read is taken as it is


@dataclass
class _Seen:
    """What was last seen of a file, and since when (monotonic seconds) it has been so."""

    size: int
    modified: float
    since: float
    taken: bool = False


class Folder:
    """Movies of a folder, or of a pattern, each given out once when it is complete, and again if it changes later.

    Complete: the size has not changed for `age` seconds while we looked, nor was the file written to for as long, and
    its reader finds it whole. What the reader does not find whole is given out after six times as long, to be named
    as bad.
    """

    def __init__(self, place: Path, age: float, *, without: frozenset[Path] = frozenset()) -> None:
        self.place, self.age, self._without = place, age, without
        self._seen: dict[Path, _Seen] = {}

    def complete(self) -> list[Path]:
        """Movies that have become complete since the last look, oldest first."""
        now = time.monotonic()
        ready: list[Path] = []
        for path in self._files():
            try:
                state = path.stat()
            except OSError:
                continue  # it was moved away in this moment
            seen = self._seen.get(path)
            if seen is None or (seen.size, seen.modified) != (state.st_size, state.st_mtime):
                seen = self._seen[path] = _Seen(state.st_size, state.st_mtime, now)
            if not seen.taken and self._is_complete(path, seen, now - seen.since):
                seen.taken = True
                ready.append(path)
        return sorted(ready, key=lambda path: (self._seen[path].modified, str(path)))

    def _is_complete(self, path: Path, seen: _Seen, quiet: float) -> bool:
        """quiet: seconds since a change was seen. What is old already needs no more than a second look."""
        old = time.time() - seen.modified >= self.age and quiet >= min(self.age, _LOOK_S)
        if quiet >= _PATIENCE * self.age:
            return True
        return (old or quiet >= self.age) and not _fault_of(path)

    def _files(self) -> list[Path]:
        if "*" in str(self.place):
            found = Path(self.place.anchor).glob(str(self.place.relative_to(self.place.anchor)))
        else:
            found = self.place.rglob("*")
        return [
            one
            for one in found
            if one.name.lower().endswith(MOVIE_ENDINGS) and not one.name.startswith(".") and one.is_file()
            and one.resolve() not in self._without
        ]  # fmt: skip


def _fault_of(path: Path) -> str:
    """What a reader says against the file's headers and length; empty where it finds it whole."""
    try:
        open_movie(path, eer_grouping=1)
    except InputError as error:
        return f"{error.what}. {error.remedy}"
    return ""


@dataclass(frozen=True)
class Arrival:
    """One movie as it goes to a rank: its list of one, and the sizes that movies must have."""

    listed: Dataset
    shapes: dict[int, tuple[int, int]]


class Watched:
    """Results as they come, and None now and then while there are none.

    Iterating ends after `stop_after_idle` minutes without a new movie. Stopped in between, it waits for what is on its
    way, and no more is begun. With several ranks the first one looks at the folder, and all take movies.
    """

    def __init__(self, steps: Steps, params: Any, context: Context) -> None:
        self.steps, self.params, self.context = steps, params, context
        place = (context.project / params.watch).absolute()
        if "*" not in params.watch and not place.is_dir():
            raise InputError(params.watch, "there is no such folder", "Make it, or mend the name.")
        given = [context.project / one for one in (params.gain, params.defects) if one]
        self.folder = Folder(place, params.watch_age, without=frozenset(one.resolve() for one in given))
        self.work: Work | None = None
        self.stream: Stream | None = None
        self._preparing = threading.Lock()
        self._order: list[str] = []
        self._paths: list[Path] = []
        self._done: dict[str, Preprocessed] = {}
        self._names: dict[int, str] = {}  # by their numbers in the queue

    @property
    def results(self) -> list[Preprocessed]:
        """What is done, in the order in which the movies appeared."""
        return [self._done[name] for name in self._order if name in self._done]

    def __iter__(self) -> Generator[Preprocessed | None]:
        queue = OpenQueue(self._process, threads=self._lanes, ranks=self.context.ranks)
        if not self.context.writes:
            queue.serve()
        last = time.monotonic()
        pause = min(_LOOK_S, max(0.1, self.folder.age / 4))
        log.info("watching %s; stop with Ctrl-C, go on with --continue", self.folder.place)
        try:
            while True:
                for path in self.folder.complete():
                    last = time.monotonic()
                    name = self._take(path)
                    if name in self._done:  # it cannot be opened
                        yield self._done[name]
                    else:
                        self._names[queue.put(self._arrival(name))] = name
                was_idle = not queue.on_way
                for number, result in queue.done(pause):
                    yield self._note(number, result)
                if was_idle:
                    yield None
                else:
                    last = time.monotonic()
                idle = time.monotonic() - last
                if self.params.stop_after_idle and idle > 60 * self.params.stop_after_idle and not queue.on_way:
                    log.info("no new movie for %.1f min: ending", idle / 60)
                    return
        finally:
            for number, result in queue.close():
                self._note(number, result)

    def _lanes(self) -> int:
        """One until the first movie is there, which tells how many have room."""
        return self.stream.lanes if self.stream is not None else 1

    def _arrival(self, name: str) -> Arrival:
        assert self.work is not None
        return Arrival(self.work.dataset.take(np.array([self._order.index(name)])), self.work.shapes)

    def _process(self, arrival: Arrival) -> Preprocessed:
        """Take a movie all the way, in any rank."""
        with self._preparing:
            if self.stream is None:
                self.work = prepare_like(arrival.listed, arrival.shapes, self.steps.motion, self.context)
                self.stream = Stream(self.steps, self.work)
            stream, work = self.stream, self.work
        assert work is not None
        stream.start_lane()
        return stream.process(replace(work, dataset=arrival.listed), 0)

    def _note(self, number: int, result: Preprocessed) -> Preprocessed:
        """Keep a result under its place in the list of all."""
        name = self._names[number]
        if result.motion is not None:
            result = replace(result, motion=replace(result.motion, index=self._order.index(name)))
        self._done[name] = result
        return result

    def _take(self, path: Path) -> str:
        """Put a movie on the list; its name there. While none could be opened yet, one that cannot is done: as bad."""
        name = str(listed_movies([path], self.context).rows["movie_name"][0])
        if name in self._order:  # it has changed since it was taken
            self._forget(name)
        else:
            self._order.append(name)
            self._paths.append(path)
        if self.work is None:
            if fault := _fault_of(path):
                self._done[name] = Preprocessed(name, left_out=fault, finished=time.time())
                return name
            self.work = prepare(self.steps.motion, self.context, listed_movies(self._paths, self.context))
            self.stream = Stream(self.steps, self.work)
        else:
            rows = listed_movies(self._paths, self.context).rows
            self.work = replace(self.work, dataset=Dataset("movies", self.work.dataset.optics, rows))
        return name

    def _forget(self, name: str) -> None:
        """What was made of a movie that is another one now."""
        self._done.pop(name, None)
        stem = self.context.directory / stem_of(name, self.context)
        for ending in (".star", "_ctf.star", "_candidates.star", "_autopick.star", ".mrcs"):
            stem.with_name(f"{stem.name}{ending}").unlink(missing_ok=True)
