"""A queue that stays open: items come while it is worked on, by threads of all ranks, and results go as they are done.

As in `queue`, each takes the next item when it is free, and the first rank takes up what a rank that died had in hand.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Generic, NoReturn, TypeVar

from vitreous.runtime.heartbeat import Watch
from vitreous.runtime.queue import Answer, Served, attempt, portable, repeat
from vitreous.runtime.ranks import ALONE, Ranks

Item = TypeVar("Item")
Result = TypeVar("Result")
log = logging.getLogger(__name__)
_POLL_S = 0.05
_LOOK_S = 1.0  # between looks at who lives
_TAKING_S = 0.5  # between taking a ticket and saying so
_MOST_THREADS = 256


class OpenQueue(Generic[Item, Result]):
    """The first rank (or the only process) puts items in, gets results out and closes it; the others serve.

    work: what is done to an item (which can be pickled, as its result, where there are several ranks). threads: how
    many items are worked on at a time in this rank; it may grow.
    """

    def __init__(
        self, work: Callable[[Item], Result], *, threads: Callable[[], int], ranks: Ranks | None = None
    ) -> None:
        self._work, self._threads, self._ranks = work, threads, ranks or ALONE
        self._meeting = self._ranks.meeting
        self._watch = Watch(self._meeting) if self._meeting is not None else None
        self._items: list[Item] = []
        self._on_way: set[int] = set()
        self._again: deque[int] = deque()
        self._orphans: set[int] = set()  # tickets of dead ranks, for items that have not come yet
        self._answers: deque[tuple[int, Answer[Result]]] = deque()
        self._unread: set[int] = set()  # answers of other ranks by their numbers, of `_seen` that were announced
        self._seen = 0
        self._dead: set[int] = set()
        self._looked = time.monotonic()
        self._numbers = itertools.count()
        self._fault: BaseException | None = None
        self._closed = threading.Event()
        self._executor = ThreadPoolExecutor(_MOST_THREADS)
        self._hands: list[Future[None]] = []

    @property
    def on_way(self) -> int:
        """How many items have not come out yet."""
        return len(self._on_way)

    def put(self, item: Item) -> int:
        """Put an item in; its number, from 0."""
        index = len(self._items)
        self._on_way.add(index)
        self._items.append(item)
        if self._meeting is not None:
            self._meeting.put(f"item/{index}", item)
        if index in self._orphans:
            self._again.append(index)
        self._lend_hands()
        return index

    def done(self, wait_s: float = 0.0) -> list[tuple[int, Result]]:
        """Numbers and results of items that came out since the last call; waits so long for the first of them.

        Raises what work raised, once all that came before is out.
        """
        deadline = time.monotonic() + wait_s
        while not (found := self._collected()):
            if self._fault is not None:
                raise self._fault
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
            self._lend_hands()
        return found

    def close(self) -> list[tuple[int, Result]]:
        """No item is begun any more, in any rank; what is in hand is finished. What came out meanwhile."""
        self._closed.set()
        if self._meeting is not None:
            self._meeting.put("closed", True)
        self._executor.shutdown(wait=True)
        found = self._collected()
        while any(self._is_here(rank) for rank in range(1, self._ranks.size)):
            time.sleep(_POLL_S)
        return found + self._collected()

    def serve(self) -> NoReturn:
        """The part of a rank that is not the first: until the queue is closed. Raises Served."""
        assert self._meeting is not None
        try:
            self._lend_hands()
            while wait_for(self._hands, timeout=_LOOK_S).not_done:
                self._lend_hands()
            for hand in self._hands:
                hand.result()
        finally:
            self._closed.set()
            self._executor.shutdown(wait=True)
        self._meeting.put(f"left/{self._ranks.rank}", True)
        raise Served

    def _lend_hands(self) -> None:
        while len(self._hands) < min(self._threads(), _MOST_THREADS) and not self._closed.is_set():
            self._hands.append(self._executor.submit(self._take_items))

    def _take_items(self) -> None:
        """One thread: item after item until the queue is closed. A ticket is good for an item that is yet to come."""
        ticket: int | None = None
        while not self._closed.is_set():
            try:
                index = self._again.popleft()
            except IndexError:
                ticket = self._ticket() if ticket is None else ticket
                if not self._has_come(ticket):
                    if self._meeting is not None and self._meeting.has("closed"):
                        return
                    time.sleep(_POLL_S)
                    continue
                index, ticket = ticket, None
            self._tell(f"working on item {index + 1}")
            self._answer(index, attempt(self._work, self._item(index)))
            self._tell("waiting for an item")

    def _tell(self, doing: str) -> None:
        if self._ranks.heartbeat is not None:
            self._ranks.heartbeat.tell(doing)

    def _ticket(self) -> int:
        if self._meeting is None:
            return next(self._numbers)
        index = self._meeting.ticket("next")
        self._meeting.put(f"taken/{index}", self._ranks.rank)
        return index

    def _has_come(self, index: int) -> bool:
        if self._ranks.is_first:
            return index < len(self._items)
        assert self._meeting is not None
        return self._meeting.has(f"item/{index}")

    def _item(self, index: int) -> Item:
        if self._ranks.is_first:
            return self._items[index]
        assert self._meeting is not None
        item: Item = self._meeting.get(f"item/{index}")
        return item

    def _answer(self, index: int, answer: Answer[Result]) -> None:
        if self._ranks.is_first:
            self._answers.append((index, answer))
            return
        assert self._meeting is not None
        number = self._meeting.ticket("finished")
        self._meeting.put(f"finished/{number}", (index, portable(answer)))

    def _collected(self) -> list[tuple[int, Result]]:
        """What has come out, on the first rank; items of ranks that died are taken up again now and then."""
        for hand in self._hands:
            if hand.done():
                hand.result()  # never an item's error
        if time.monotonic() - self._looked > _LOOK_S:
            self._looked = time.monotonic()
            self._look()
        found = []
        while self._answers or self._read():
            index, answer = self._answers.popleft()
            if index not in self._on_way:
                continue  # it was taken up again although it was finished
            self._on_way.discard(index)
            if answer.error is not None:
                self._fault = self._fault or answer.error
            else:
                found.append((index, answer.result))
        return found  # type: ignore[return-value]

    def _read(self) -> bool:
        """Answers that other ranks have left; whether there were any."""
        if self._meeting is None or self._ranks.size == 1:
            return False
        announced = self._meeting.ticket("finished", peek=True)
        self._unread |= set(range(self._seen, announced))
        self._seen = announced
        there = [number for number in sorted(self._unread) if self._meeting.has(f"finished/{number}")]
        for number in there:
            index, answer = self._meeting.take(f"finished/{number}")
            repeat(answer.said)
            self._answers.append((index, answer))
        self._unread -= set(there)
        return bool(there)

    def _look(self) -> None:
        """Find ranks that have died since the last look; their items in hand, and those to come, go to this one."""
        if self._watch is None or self._meeting is None:
            return
        for rank in range(1, self._ranks.size):
            if rank in self._dead or not self._watch.is_dead(rank) or self._watch.has_left(rank):
                continue
            self._dead.add(rank)
            time.sleep(_TAKING_S)
            self._read()
            answered = {index for index, _ in self._answers}
            taken = range(self._meeting.ticket("next", peek=True))
            open_ = [one for one in taken if one in self._on_way or one >= len(self._items)]
            lost = [one for one in open_ if one not in answered and self._is_of(one, rank)]
            in_hand = [one for one in lost if one < len(self._items)]
            self._orphans |= set(lost) - set(in_hand)
            log.warning("%s has died: %d items in hand are taken up again", self._watch.name(rank), len(in_hand))
            self._again.extend(in_hand)

    def _is_of(self, index: int, rank: int) -> bool:
        """Whether a dead rank drew this number (or died before it could say so)."""
        assert self._meeting is not None
        key = f"taken/{index}"
        return not self._meeting.has(key) or bool(self._meeting.get(key) == rank)

    def _is_here(self, rank: int) -> bool:
        return self._watch is not None and not (self._watch.has_left(rank) or self._watch.is_dead(rank))
