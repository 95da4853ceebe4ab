"""Searches shared by ranks: one queue of stretches of all micrographs' searches, merged exactly on the first rank.

A stretch is whole blocks of the same blocks as one process makes, so that the merged maxima have its bits. Statistics
are too large for the ranks' store (16 bytes a pixel, 40 with trimmed sums): they go through files in the job's folder.
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.jobs._matching import (
    Ending,
    Saver,
    Ticker,
    hierarchical_maps,
    load_progress,
    matched_before,
    open_search,
)
from vitreous.jobs._matching_files import is_recorded
from vitreous.jobs._matching_merge import Piece, Rate, merged
from vitreous.jobs._matching_task import Machine, Matched, PeakChoice, Task
from vitreous.methods.matching.match import (
    Progress,
    Search,
    pilot_cuts,
    planned_block,
    search_stretch,
    stretch_of,
)
from vitreous.methods.matching.search import SearchMaps
from vitreous.runtime.checkpoint import save_checkpoint
from vitreous.runtime.device import set_threads
from vitreous.runtime.queue import shared_out
from vitreous.runtime.ranks import Ranks

log = logging.getLogger(__name__)
_A_THREAD = 10_000  # correlations a pixel in a stretch: five minutes of a core at 4096^2
_A_GPU = 200_000


@dataclass(frozen=True)
class Team:
    """Who shares the searches. folder: for statistics on their way; stretch: as the option, 0 for our choice."""

    ranks: Ranks
    folder: Path
    threads: int
    stretch: int = 0


@dataclass(frozen=True)
class _Start:
    """Where a micrograph's search begins: before which block, and of how many projections (0: as is planned)."""

    block: int = 0
    size: int = 0


@dataclass(frozen=True)
class _Plan:
    """What all ranks must agree on. memory: that blocks are planned for. parts: stretches of each micrograph.

    starts: of the micrographs that are to be searched, by their numbers.
    """

    memory: float
    parts: int
    starts: dict[int, _Start]

    def items(self) -> list[tuple[int, int]]:
        """(micrograph, part), in order."""
        return [(number, part) for number in self.starts for part in range(self.parts)]


_Answer = Piece | SearchMaps | InputError


def match_over_ranks(
    tasks: list[Task], template: Volume, choice: PeakChoice, machine: Machine, team: Team, *, resume: bool
) -> Iterator[tuple[Task, Matched | InputError]]:
    """On the first rank, what came of each micrograph, in their order; the others raise queue.Served at the end.

    The checkpoints are those of one process: either may go on from the other's, with any number of ranks.
    """
    desk = _Desk(tasks, template, machine)
    begun: dict[int, Progress] = {}
    plan = None
    if team.ranks.is_first:
        shutil.rmtree(team.folder, ignore_errors=True)  # what an earlier run left
        ended = {number for number, task in enumerate(tasks) if resume and is_recorded(task, template, machine)}
        begun = _checkpoints(desk, ended) if resume else {}
        plan = _planned(desk, team, begun, ended)
        log.info("%d micrographs in %d stretches each", len(plan.starts), plan.parts)
    plan = team.ranks.share(plan, "matching")
    share = _Share(desk, plan, team)
    answers = shared_out(
        plan.items(), share.search, threads=1, ranks=team.ranks, start_thread=lambda: _use_threads(team.threads)
    )
    rate = Rate()
    for number, task in enumerate(tasks):
        some = islice(answers, plan.parts if number in plan.starts else 0)
        try:
            if number in plan.starts:
                yield task, _matched(desk, number, some, choice, begun.pop(number, None), rate)
            else:
                yield task, matched_before(task, template, choice)
        except InputError as error:
            deque(some, maxlen=0)
            yield task, error
    deque(answers, maxlen=0)  # to its very end, where the others are let go
    shutil.rmtree(team.folder, ignore_errors=True)


def _use_threads(threads: int) -> None:
    """Numba's and OpenMP's numbers of threads are each thread's own."""
    set_threads(threads)


@dataclass(frozen=True)
class _Opened:
    """A search made ready. cut: of its trimmed moments, where these are wanted."""

    search: Search
    mark: str
    cut: Tensor | None


@dataclass
class _Desk:
    """One rank's micrographs; each is made ready when it is first asked for, and the last two are kept."""

    tasks: list[Task]
    template: Volume
    machine: Machine
    _ready: dict[int, _Opened | InputError] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, number: int) -> _Opened:
        """A micrograph's search. Raises InputError, each time again."""
        with self._lock:
            if number not in self._ready:
                while len(self._ready) > 1:
                    del self._ready[next(iter(self._ready))]
                self._ready[number] = self._open(self.tasks[number])
            ready = self._ready[number]
        if isinstance(ready, InputError):
            raise ready
        return ready

    def _open(self, task: Task) -> _Opened | InputError:
        try:
            search, mark = open_search(task, self.template, self.machine)
        except InputError as error:
            return error
        return _Opened(search, mark, pilot_cuts(search) if task.settings.trimmed else None)


@dataclass(frozen=True)
class _Share:
    """What a rank does with an item (micrograph, part)."""

    desk: _Desk
    plan: _Plan
    team: Team

    def search(self, item: tuple[int, int]) -> _Answer:
        """Search a stretch. An error is an answer too: the other micrographs go on."""
        number, part = item
        try:
            if self.desk.machine.strategy == "hierarchical":
                return hierarchical_maps(self.desk.tasks[number], self.desk.template, self.desk.machine)
            return self._stretch(number, part)
        except InputError as error:
            return error

    def _stretch(self, number: int, part: int) -> Piece:
        opened, start = self.desk.open(number), self.plan.starts[number]
        size = start.size or planned_block(opened.search, self.plan.memory)
        total = len(opened.search.orientations.blocks(size))
        stretch = stretch_of(start.block, total, part, self.plan.parts)
        arrays = search_stretch(opened.search, size, stretch, opened.cut).arrays()
        if self.team.ranks.is_first:
            return Piece(arrays, stretch.stop, total, size)
        path = self.team.folder / f"{number}_{part}_rank{self.team.ranks.rank}.npz"
        save_checkpoint(path, arrays)
        return Piece(path, stretch.stop, total, size)


def _planned(desk: _Desk, team: Team, begun: Mapping[int, Progress], ended: set[int]) -> _Plan:
    """By the first rank's device and memory, for all. begun, ended: micrographs of an earlier run."""
    starts = {
        number: _Start(begun[number].next_block, begun[number].size) if number in begun else _Start()
        for number in range(len(desk.tasks))
        if number not in ended
    }
    parts = 1
    if desk.machine.strategy == "full":
        usual = _A_THREAD * team.threads if desk.machine.device.type == "cpu" else _A_GPU
        settings = desk.tasks[0].settings  # all search as much
        total = len(settings.orientations()) * len(settings.planes()) * len(settings.scales)
        parts = max(1, math.ceil(total / (team.stretch or usual)))
    return _Plan(desk.machine.memory, parts, starts)


def _checkpoints(desk: _Desk, ended: set[int]) -> dict[int, Progress]:
    """The searches that an earlier run began and did not end, by the number of their micrograph."""
    begun: dict[int, Progress] = {}
    for number, task in enumerate(desk.tasks):
        if number in ended or not task.checkpoint.exists():
            continue
        try:
            progress = load_progress(task.checkpoint, desk.open(number).mark, None)
        except InputError:
            continue  # said when its turn comes
        if progress is not None:
            begun[number] = progress
    return begun


def _matched(
    desk: _Desk,
    number: int,
    answers: Iterator[_Answer],
    choice: PeakChoice,
    progress: Progress | None,
    rate: Rate,
) -> Matched:
    """Merge a micrograph's answers, in order, and write what comes of it. Raises InputError."""
    task, before = desk.tasks[number], progress.statistics.count if progress else 0
    ending = Ending(task, desk.template, desk.machine, choice)
    saver: Saver | None = None
    for answer in answers:
        if isinstance(answer, InputError):
            raise answer
        if isinstance(answer, SearchMaps):
            return ending.of_maps(answer, rate(answer.n_correlations))
        if saver is None:
            tick = Ticker(task.name, progress.next_block if progress else 0)
            saver = Saver(task.checkpoint, desk.open(number).mark, desk.machine.checkpoint_interval, tick)
        progress = merged(progress, answer)
        saver(progress, answer.total)
    if progress is None:
        raise RuntimeError(f"no stretch of {task.name} was searched")
    speed = rate(progress.statistics.count - before)
    return ending.of_search(desk.open(number).search, progress.statistics, speed)
