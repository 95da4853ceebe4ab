"""Which layout of jobs over a cluster ends first, and which wastes least. Arithmetic alone.

A micrograph takes h hours on one GPU, of which a fraction s does not speed up with more (Amdahl 1967, AFIPS 30, 483),
and a job spends setup hours on each micrograph whatever its size: t(g) = setup + h (s + (1 - s) / g) on g GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Urgency = Literal["first", "balanced", "thrifty"]
_BALANCED = 1.25  # the balanced choice ends at most this much later than the first


@dataclass(frozen=True)
class Work:
    """Micrographs, hours each on one GPU, the fraction of these that does not speed up, hours of setup each."""

    micrographs: int
    hours: float
    serial: float = 0.0
    setup: float = 0.0

    def on(self, gpus: int) -> float:
        """Hours that one micrograph takes on so many GPUs."""
        return self.setup + self.hours * (self.serial + (1 - self.serial) / gpus)


@dataclass(frozen=True)
class Layout:
    """`jobs` at the same time, each on `gpus` GPUs. each: hours a micrograph; end: hours until all are done.

    held: GPU hours that the jobs hold, each job until its own last micrograph is done. wasted: those of them in which
    no micrograph gets nearer to its end (setup, and GPUs that wait for the part that does not speed up).
    """

    name: str
    jobs: int
    gpus: int
    each: float
    end: float
    held: float
    wasted: float

    @property
    def reason(self) -> str:
        """How the time comes about, in words."""
        rounds = self.end / self.each
        times = "" if round(rounds) == 1 else f"{rounds:.0f} x "
        return f"{times}{self.each:.3g} h, {self.jobs * self.gpus} GPU{'s' * (self.jobs * self.gpus > 1)} at work"


def layouts(work: Work, nodes: int, gpus_per_node: int) -> list[Layout]:
    """The layouts worth a thought, from one GPU to one job over all nodes; the same one is not listed twice."""
    everything = nodes * gpus_per_node
    choices = [
        ("one GPU, one after another", 1, 1),
        ("single-GPU jobs", min(work.micrographs, everything), 1),
        ("one job a node", min(work.micrographs, nodes), gpus_per_node),
        ("one job over some nodes", work.micrographs, max(1, nodes // work.micrographs) * gpus_per_node),
        ("one job over all nodes", 1, everything),
    ]
    found: list[Layout] = []
    for name, jobs, gpus in choices:
        if jobs * gpus <= everything and (jobs, gpus) not in [(one.jobs, one.gpus) for one in found]:
            found.append(_layout(name, work, jobs, gpus))
    return found


def _layout(name: str, work: Work, jobs: int, gpus: int) -> Layout:
    each = work.on(gpus)
    wasted = work.micrographs * (work.setup * gpus + work.hours * work.serial * (gpus - 1))
    end = math.ceil(work.micrographs / jobs) * each
    return Layout(name, jobs, gpus, each, end, work.micrographs * work.hours + wasted, wasted)


def ends_first(found: Sequence[Layout]) -> Layout:
    """The layout that is done first; of several, the one that wastes least, then the one that holds fewest GPUs."""
    return min(found, key=lambda one: (round(one.end, 9), round(one.wasted, 9), one.jobs * one.gpus))


def wastes_least(found: Sequence[Layout]) -> Layout:
    """The layout that wastes least; of several, the one that is done first."""
    return min(found, key=lambda one: (round(one.wasted, 9), round(one.end, 9), one.jobs * one.gpus))


def advised(found: Sequence[Layout], urgency: Urgency) -> Layout:
    """What to take: the first to end, the thriftiest, or the thriftiest of those that end nearly first."""
    first = ends_first(found)
    if urgency == "first":
        return first
    if urgency == "thrifty":
        return wastes_least(found)
    return wastes_least([one for one in found if one.end <= _BALANCED * first.end])
