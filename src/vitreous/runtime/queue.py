"""Independent items shared by ranks: each takes the next one when it is free, so that a slow one holds nobody up.

A rank that dies loses nothing: the first rank takes up what it had in hand. Results come out on the first rank, in the
order of the items; the others are done when there is no more to do.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from vitreous.runtime.heartbeat import Watch
from vitreous.runtime.ranks import ALONE, Ranks

Item = TypeVar("Item")
Result = TypeVar("Result")
log = logging.getLogger(__name__)
_POLL_S = 0.05
_END_POLL_S = 0.01  # when nothing is left to take: each wait from then on is one of the whole run
_LOOK_S = 1.0  # between looks at who lives
_TAKING_S = 0.5  # between taking a ticket and saying so
_LEAVING_S = 60.0


class Served(BaseException):
    """This rank has done its share of a queue; the first rank writes what came of it."""


@dataclass(frozen=True)
class Answer(Generic[Result]):
    """What came of an item: its result or the error it raised, and what was said meanwhile."""

    result: Result | None
    error: BaseException | None
    said: list[tuple[str, int, str]]


def shared_out(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    threads: int,
    ranks: Ranks | None = None,
    start_thread: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """work(item) of every item, in their order, `threads` at a time in every rank.

    start_thread: called first in each thread. Raises what work raises, and Served, when all is done, on all ranks but
    the first.
    """
    ranks = ranks or ALONE
    threads = max(1, min(threads, len(items)))
    if ranks.meeting is None:
        executor = ThreadPoolExecutor(threads, initializer=start_thread)
        try:
            yield from executor.map(work, items)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
        return
    line = _Line(items, work, ranks)
    executor = ThreadPoolExecutor(threads, initializer=start_thread)
    try:
        hands = [executor.submit(line.take_items) for _ in range(threads)]
        if ranks.is_first:
            yield from _collected(line, Watch(ranks.meeting))
        while wait_for(hands, timeout=_LOOK_S).not_done:
            pass  # a signal is heard in between
        for hand in hands:
            hand.result()
    finally:
        line.close()
        executor.shutdown(wait=True, cancel_futures=True)
    if not ranks.is_first:
        ranks.meeting.put(f"left/{ranks.rank}", True)
        raise Served


class _Line(Generic[Item, Result]):
    """One rank's end of the queue: threads take items and leave answers; `again` are items to take up a second time.

    poll_s: seconds between looks at what others do, less when they are about to be done.
    """

    def __init__(self, items: Sequence[Item], work: Callable[[Item], Result], ranks: Ranks) -> None:
        assert ranks.meeting is not None
        self.items, self.ranks, self.meeting = items, ranks, ranks.meeting
        self.again: deque[int] = deque()
        self.answers: dict[int, Answer[Result]] = {}
        self.poll_s = _POLL_S
        self._work = work
        self._closed = threading.Event()

    def close(self) -> None:
        """No item is begun any more, in no rank where this is the first one."""
        self._closed.set()
        if self.ranks.is_first:
            self.meeting.put("closed", True)

    def take_items(self) -> None:
        """One thread: item after item until there are no more, or the queue is closed."""
        while (index := self._next()) is not None:
            self._tell(f"working on item {index + 1} of {len(self.items)}")
            answer = attempt(self._work, self.items[index])
            if self.ranks.is_first:
                self.answers[index] = answer
            else:
                self.meeting.put(f"done/{index}", portable(answer))
            self._tell("waiting for an item")

    def _tell(self, doing: str) -> None:
        if self.ranks.heartbeat is not None:
            self.ranks.heartbeat.tell(doing)

    def _next(self) -> int | None:
        while not self._closed.is_set():
            if self.again:
                return self.again.popleft()
            index = self.meeting.ticket("next") if self.n_taken() < len(self.items) else len(self.items)
            if index < len(self.items):
                self.meeting.put(f"taken/{index}", self.ranks.rank)
                return index
            self.poll_s = _END_POLL_S
            if self.meeting.has("closed"):
                return None
            time.sleep(self.poll_s)
        return None

    def n_taken(self) -> int:
        """How many items have been taken, by any rank."""
        return self.meeting.ticket("next", peek=True)


def attempt(work: Callable[[Item], Result], item: Item) -> Answer[Result]:
    """What comes of an item, its error included."""
    with _hearing() as said:
        try:
            return Answer(work(item), None, said)
        except Exception as error:
            return Answer(None, error, said)


def portable(answer: Answer[Result]) -> Answer[Result]:
    """As it can be sent: an error that cannot be pickled becomes its words."""
    try:
        pickle.loads(pickle.dumps(answer))
    except Exception as fault:
        words = repr(answer.error) if answer.error is not None else f"a result cannot be sent: {fault}"
        return Answer(None, RuntimeError(words), answer.said)
    return answer


def _collected(line: _Line[Item, Result], watch: Watch) -> Iterator[Result]:
    """Answers in order, on the first rank; items of ranks that died are taken up again."""
    dead: set[int] = set()
    looked = time.monotonic()
    for index in range(len(line.items)):
        while index not in line.answers and not line.meeting.has(f"done/{index}"):
            if time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                _look(line, watch, dead)
            time.sleep(line.poll_s)
        answer: Answer[Result] | None = line.answers.pop(index, None)
        if answer is None:
            answer = line.meeting.get(f"done/{index}")
            assert answer is not None
            repeat(answer.said)
        if answer.error is not None:
            raise answer.error
        yield answer.result  # type: ignore[misc]
        if index == 0:  # what the work itself imports is there by now
            line.ranks.meanwhile()
    line.close()
    _wait_for_leaving(line, watch, dead)


def _look(line: _Line[Item, Result], watch: Watch, dead: set[int]) -> None:
    """Find ranks that have died since the last look, and take up what they had in hand."""
    for rank in range(1, line.ranks.size):
        if rank in dead or not watch.is_dead(rank):
            continue
        dead.add(rank)
        time.sleep(_TAKING_S)
        lost = [index for index in range(len(line.items)) if _is_in_hand(line, index, rank)]
        log.warning("%s has died: %d items in hand are taken up again", watch.name(rank), len(lost))
        line.again.extend(lost)


def _is_in_hand(line: _Line[Item, Result], index: int, rank: int) -> bool:
    """Whether a dead rank took this item (or died before it could say so) and left no answer."""
    if index in line.answers or line.meeting.has(f"done/{index}") or index >= line.n_taken():
        return False
    key = f"taken/{index}"
    return not line.meeting.has(key) or bool(line.meeting.get(key) == rank)


def _wait_for_leaving(line: _Line[Item, Result], watch: Watch, dead: set[int]) -> None:
    """The store goes with this process: not before the others have seen that there is no more to do."""
    deadline = time.monotonic() + _LEAVING_S
    for rank in range(1, line.ranks.size):
        while not (line.meeting.has(f"left/{rank}") or rank in dead or watch.is_dead(rank)):
            if time.monotonic() > deadline:
                return
            time.sleep(_END_POLL_S)


class _Ear(logging.Handler):
    """Takes down warnings of our own, by thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.get_ident()
        self.said: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what the thread that listens said."""
        if record.thread == self.thread:
            self.said.append((record.name, record.levelno, record.getMessage()))


@contextmanager
def _hearing() -> Iterator[list[tuple[str, int, str]]]:
    ear = _Ear()
    logger = logging.getLogger("vitreous")
    logger.addHandler(ear)
    try:
        yield ear.said
    finally:
        logger.removeHandler(ear)


def repeat(said: list[tuple[str, int, str]]) -> None:
    """What another rank said, once more where it is heard."""
    for name, level, message in said:
        logging.getLogger(name).log(level, "%s", message)
