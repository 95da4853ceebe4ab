"""Progress: how long is left, and work that must not cost more than its share."""

from __future__ import annotations

import pytest

from vitreous.runtime import progress


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_drawing_costs_a_twentieth_of_the_time(clock: Clock) -> None:
    drawn: list[float] = []

    def draw() -> None:
        clock.now += 2.0
        drawn.append(clock.now)

    work = progress.Sparingly(draw)
    for _ in range(1000):
        clock.now += 1.0  # an iteration
        work()
    assert 20 <= len(drawn) <= 25
    assert 2.0 * len(drawn) <= 0.05 * (clock.now - 100.0) + 2.0
    assert drawn[0] > 110.0  # not at once: a short job is over before


def test_pace_leaves_out_the_first_step(clock: Clock) -> None:
    pace = progress.Pace(4)
    clock.now += 60.0
    assert pace.step() == "about 3 min left"
    clock.now += 10.0
    assert pace.step() == "about 20 s left"
    clock.now += 10.0
    assert pace.step() == "about 10 s left"
    assert pace.step() == "done"
