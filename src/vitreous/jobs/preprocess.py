"""Movies in, particles out: motion, CTF, picks and particles of each movie in one stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import torch

from vitreous.core.errors import InputError
from vitreous.io.failed import write_failed
from vitreous.job import Context, Job, Outputs
from vitreous.jobs._motioncorr_work import Work, prepare
from vitreous.jobs._preprocess_files import write_so_far
from vitreous.jobs._preprocess_parameters import PreprocessParameters, Steps
from vitreous.jobs._preprocess_stream import Preprocessed, Stream
from vitreous.jobs._preprocess_watch import Watched
from vitreous.runtime.progress import Sparingly, track
from vitreous.runtime.queue import Served, shared_out

log = logging.getLogger(__name__)


class Preprocess(Job):
    """Motion correction, CTF, picking and extraction of one movie after the other, nothing read twice."""

    name = "preprocess"
    folder = "Preprocess"
    relion_type = "vitreous.preprocess"
    help = "movies to particles in one stream, also while they are recorded"
    Parameters = PreprocessParameters
    shared = queued = True

    def run(self, params: Any, context: Context) -> Outputs:
        """Write what motioncorr, ctf, autopick and extract would write, and stream.star."""
        steps = Steps.of(params)
        before = torch.get_num_threads()
        try:
            return _Run(steps, params, context).whole()
        finally:
            torch.set_num_threads(before)


class _Run:
    """A run: results in the order of acquisition, and the tables that are written as they come."""

    def __init__(self, steps: Steps, params: Any, context: Context) -> None:
        self.steps, self.params, self.context = steps, params, context
        self.results: list[Preprocessed] = []
        self.started = time.time()
        self.work: Work | None = None
        self.stream: Stream | None = None
        self._unwritten = False
        self._write = Sparingly(self._write_so_far)

    def whole(self) -> Outputs:
        """Every movie, then the thresholds that all of them decide."""
        source = self._watched() if self.params.watch else self._listed()
        try:
            with closing(source):
                for result in source:
                    self._note(result)
        except Served:
            raise
        except BaseException:
            if self.results:  # stopped: what is done is to be found
                self._write_so_far()
            raise
        return self._ended()

    def _listed(self) -> Generator[Preprocessed | None]:
        work = self.work = prepare(self.steps.motion, self.context)
        stream = self.stream = Stream(self.steps, work, len(work.dataset))
        results = shared_out(
            range(len(work.dataset)),
            lambda index: stream.process(work, index),
            threads=stream.lanes,
            ranks=self.context.ranks,
            start_thread=stream.start_lane,
        )
        for result in track(results, "pre-processing", len(work.dataset)):
            self.results.append(result)
            yield result

    def _watched(self) -> Generator[Preprocessed | None]:
        watched = Watched(self.steps, self.params, self.context)
        try:
            with closing(iter(watched)) as results:
                for result in results:
                    self.work, self.stream, self.results = watched.work, watched.stream, watched.results
                    yield result
        finally:
            self.results = watched.results  # with those that were on their way when it was stopped

    def _note(self, result: Preprocessed | None) -> None:
        """One more is done, or some time has passed: what there is to show is written, but not too often."""
        if result is not None:
            self._unwritten = True
            if result.left_out:
                log.warning("%s left out: %s", result.name, result.left_out)
        if self._unwritten and len(self.results) == 1:
            self._write_so_far()
        elif self._unwritten:
            self._write()
        else:
            self.context.iteration_done()

    def _write_so_far(self) -> None:
        self._unwritten = False
        if self.work is None:  # only movies that cannot be opened have come
            write_failed(self.context.directory, [(one.name, one.left_out) for one in self.results])
            return
        write_so_far(self.steps, self.work, self.results, self.started, last=False)
        self.context.iteration_done()

    def _ended(self) -> Outputs:
        if not any(not one.left_out for one in self.results):
            write_failed(self.context.directory, [(one.name, one.left_out) for one in self.results])
            if not self.results:
                raise InputError(self.params.watch, "no movie came", "Check the folder.")
            what = f"none of its {len(self.results)} movies could be used; the first: {self.results[0].left_out}"
            raise InputError(self.context.project / (self.params.input or self.params.watch), what, "Check the movies.")
        assert self.work is not None
        self._settle()
        return write_so_far(self.steps, self.work, self.results, self.started, last=True)

    def _settle(self) -> None:
        """Thresholds from the scores of all micrographs, as `autopick` sets them; few picks change by then."""
        searched = [one for one in self.results if one.found is not None and not one.left_out]
        stream = self.stream
        if not searched or stream is None or stream.detector is None:
            return
        found = [one.found for one in searched if one.found is not None]
        cuts = stream.detector.cut([one.candidates.scores for one in found], found[0].candidates.noise, None)
        with ThreadPoolExecutor(stream.at_once, initializer=stream.start_lane) as threads:
            settled = dict(zip([one.name for one in searched], threads.map(stream.settle, searched, cuts), strict=True))
        changed = sum(settled[one.name].picks is not one.picks for one in searched)
        log.info("%d of %d micrographs were picked and cut again by the threshold of all", changed, len(searched))
        self.results = [settled.get(one.name, one) for one in self.results]
