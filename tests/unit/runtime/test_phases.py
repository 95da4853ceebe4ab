from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from vitreous.runtime.phases import Phases


def slowly(n: int, seconds: float) -> Iterator[int]:
    for item in range(n):
        time.sleep(seconds)
        yield item


def test_making_and_using_are_told_apart() -> None:
    phases = Phases()
    for _ in phases.turns(slowly(3, 0.05), "expectation", "maximisation"):
        time.sleep(0.1)
    assert phases.seconds["expectation_seconds"] == pytest.approx(0.15, abs=0.06)
    assert phases.seconds["maximisation_seconds"] == pytest.approx(0.3, abs=0.06)
    assert phases.seconds["maximisation_seconds"] >= 0.3


def test_blocks_add_up_also_where_they_fail() -> None:
    kept = {"reading_seconds": 1.0}
    phases = Phases(kept)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), phases.phase("reading"):
            time.sleep(0.02)
            raise ValueError("x")
    assert kept["reading_seconds"] >= 1.04
