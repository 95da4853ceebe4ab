"""Ranks: the few words in which distributed work is written. On one process each of them does nothing.

Started under torchrun (or srun with the same variables) there are WORLD_SIZE ranks, joined by Gloo on CPUs and NCCL on
GPUs. Every rank works; there is no leader that idles.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from vitreous.runtime.guard import Guard
from vitreous.runtime.heartbeat import Heartbeat
from vitreous.runtime.launch import ONE_GPU
from vitreous.runtime.meeting import Meeting
from vitreous.runtime.sum_files import SMALL, SumFiles, clean


class RankLost(RuntimeError):
    """Another rank died, or did not come in time, while all were to do something together."""


@dataclass(frozen=True)
class Ranks:
    """Who this process is among how many. group: the process group it talks through; None for one process.

    meeting: where ranks that take items from a queue meet, instead of a group, which would end with any of them.
    heartbeat: tells what this rank does. files: large sums go through these instead of the network. meanwhile: what the
    first rank gets ready while items of a queue are worked on. Collective operations raise RankLost where another rank
    is gone or does not come in time.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    meeting: Meeting | None = None
    heartbeat: Heartbeat | None = None
    files: SumFiles | None = None
    meanwhile: Callable[[], object] = lambda: None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is to be written once."""
        return self.rank == 0

    def shard(self, n: int) -> range:
        """This rank's contiguous share of n items; the shares differ by at most one item and cover all."""
        base, extra = divmod(n, self.size)
        start = self.rank * base + min(self.rank, extra)
        return range(start, start + base + (self.rank < extra))

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up a tensor over the ranks, in place. Accumulate in float64 where rank counts must agree."""
        if self.size == 1:
            return tensor
        if self.files is not None and tensor.nbytes > SMALL:
            self.files.sum_(tensor, self.barrier)
            return tensor
        with self._together("adding up"):
            dist.all_reduce(torch.view_as_real(tensor) if tensor.is_complex() else tensor, group=self.group)
        return tensor

    @contextmanager
    def adding_through(self, folder: Path) -> Iterator[Ranks]:
        """These ranks, whose large sums go through files in a folder that all see; it is gone when the block ends.

        What a killed run left there goes first; a run never takes another's files for its own.
        """
        if self.size == 1:
            yield self
            return
        if self.is_first:
            clean(folder)
        own = self.share(folder / uuid.uuid4().hex)
        try:
            yield replace(self, files=SumFiles(own, self.rank, self.size))
            self.barrier()  # all have read what is about to go
        finally:
            if self.is_first:
                clean(folder)

    def broadcast_(self, tensor: torch.Tensor, source: int = 0) -> torch.Tensor:
        """Give every rank the tensor of one (source counted within the group), in place."""
        if self.size > 1:
            origin = dist.get_global_rank(self.group, source)
            with self._together("handing out"):
                dist.broadcast(torch.view_as_real(tensor) if tensor.is_complex() else tensor, origin, group=self.group)
        return tensor

    def gather(self, item: Any) -> list[Any]:
        """Every rank's (picklable) item, in rank order, on every rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        with self._together("gathering"):
            dist.all_gather_object(items, item, group=self.group)
        return items

    def share(self, item: Any, name: str = "place") -> Any:
        """The first rank's (picklable) item, on every rank. name: for ranks at a queue, one for each item shared."""
        if self.meeting is not None:
            if self.is_first:
                self.meeting.put(f"shared/{name}", item)
            return self.meeting.get(f"shared/{name}")
        items = [item]
        if self.size > 1:
            with self._together("handing out"):
                dist.broadcast_object_list(items, dist.get_global_rank(self.group, 0), group=self.group)
        return items[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            with self._together("meeting"):
                dist.barrier(group=self.group)

    @contextmanager
    def _together(self, what: str) -> Iterator[None]:
        """Something that all ranks do at the same time; it is told, and an error of it is that a rank is gone."""
        if self.heartbeat is not None:
            self.heartbeat.tell(f"{what}, with all ranks", waits=True)
        try:
            yield
        except RuntimeError as error:
            raise RankLost(f"a rank was lost ({what}): {_plain(error)}") from error
        if self.heartbeat is not None:
            self.heartbeat.tell(f"working since {what}")

    def split(self, n_groups: int = 2) -> tuple[Ranks, Sequence[int]]:
        """Ranks of this one's group and the group numbers (half-sets) that it has to work on.

        With as many ranks as groups or more, contiguous ranks share a group and each does one; with fewer, every
        rank stays alone with the groups it takes in turn.
        """
        if self.size < n_groups:
            alone = self if self.size == 1 else self._subgroup([[rank] for rank in range(self.size)], self.rank)
            return alone, range(self.rank, n_groups, self.size)
        members = [Ranks(group, n_groups).shard(self.size) for group in range(n_groups)]
        mine = next(index for index, part in enumerate(members) if self.rank in part)
        return self._subgroup([list(part) for part in members], mine), [mine]

    def _subgroup(self, members: list[list[int]], mine: int) -> Ranks:
        """Every rank must make every group, in one order (torch.distributed's rule)."""
        groups = [dist.new_group([dist.get_global_rank(self.group, rank) for rank in part]) for part in members]
        return Ranks(members[mine].index(self.rank), len(members[mine]), groups[mine], heartbeat=self.heartbeat)


def _plain(error: RuntimeError) -> str:
    """The first sentence of a library's message, without the place in its source."""
    return re.sub(r"^\[\S+\]\s*", "", str(error)).partition(". ")[0].partition("\n")[0]


ALONE = Ranks()


@contextmanager
def joined(*, queued: bool = False) -> Iterator[Ranks]:
    """Join the ranks of this run for a while. A rank that fails leaves without waiting for the others.

    queued: only to take items from a queue; then a rank that dies does not end the others.
    """
    if queued:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        meeting = Meeting(keeps=rank == 0)
        heartbeat = Heartbeat(rank)
        yield Ranks(rank, size, meeting=meeting, heartbeat=heartbeat)
        heartbeat.close()
        return
    ranks = start()
    if ranks.size == 1:
        yield ranks
        return
    heartbeat = Heartbeat(ranks.rank)
    guard = Guard(ranks.rank, ranks.size, heartbeat)
    try:
        yield replace(ranks, heartbeat=heartbeat)
        heartbeat.tell_leaving()
    finally:
        guard.close()
        heartbeat.close()
    stop()


def start(timeout_s: float | None = None) -> Ranks:
    """The ranks of this run: one process, or what torchrun's environment says.

    timeout_s: how long the others may let a rank wait before it gives up (VITREOUS_TIMEOUT_S, else half an hour).
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if not dist.is_initialized():
        seconds = timeout_s or float(os.environ.get("VITREOUS_TIMEOUT_S", "1800"))
        nccl = torch.cuda.is_available() and ONE_GPU not in os.environ
        backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    return Ranks(dist.get_rank(), dist.get_world_size(), dist.group.WORLD)


def stop() -> None:
    """Leave the group, where there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
