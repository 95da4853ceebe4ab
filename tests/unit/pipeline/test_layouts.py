from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.pipeline.layouts import Work, advised, ends_first, layouts, wastes_least


def test_three_micrographs_on_sixteen_nodes_of_four() -> None:
    found = {one.name: one for one in layouts(Work(3, 16.0), 16, 4)}
    assert found["one GPU, one after another"].end == 48.0
    assert (found["single-GPU jobs"].jobs, found["single-GPU jobs"].end) == (3, 16.0)
    assert (found["one job a node"].jobs, found["one job a node"].end) == (3, 4.0)
    whole = found["one job over all nodes"]
    assert (whole.gpus, whole.each, whole.end) == (64, 0.25, 0.75)
    assert ends_first(list(found.values())) is whole
    assert all(one.wasted == 0 and one.held == 48 for one in found.values())


def test_what_does_not_speed_up_makes_wide_jobs_wasteful() -> None:
    found = layouts(Work(3, 16.0, serial=0.01, setup=0.05), 16, 4)
    first, least = ends_first(found), wastes_least(found)
    assert first.name == "one job over some nodes"  # 3 jobs of 5 nodes, 20 GPUs each
    assert math.isclose(first.end, 0.05 + 16 * (0.01 + 0.99 / 20))
    assert least.name == "single-GPU jobs"
    assert math.isclose(least.wasted, 3 * 0.05)
    assert math.isclose(first.wasted, 3 * 20 * first.each - 48)


def test_urgency() -> None:
    found = layouts(Work(3, 16.0, serial=0.01), 16, 4)
    assert advised(found, "first") is ends_first(found)
    assert advised(found, "thrifty") is wastes_least(found)
    assert advised(found, "balanced").end <= 1.25 * ends_first(found).end


def test_more_micrographs_than_gpus_go_in_rounds() -> None:
    found = {one.name: one for one in layouts(Work(10, 2.0), 1, 4)}
    assert found["single-GPU jobs"].end == 6.0
    assert found["one job a node"].end == 5.0


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 8), st.floats(0, 1), st.floats(0, 1))
def test_none_ends_before_the_work_could(micrographs: int, nodes: int, gpus: int, serial: float, setup: float) -> None:
    work = Work(micrographs, 3.0, serial, setup)
    found = layouts(work, nodes, gpus)
    assert len(found) >= 1
    for one in found:
        assert one.jobs * one.gpus <= nodes * gpus
        assert one.end * one.jobs * one.gpus >= micrographs * 3.0 - 1e-9
        assert one.wasted >= -1e-9


@pytest.mark.parametrize("urgency", ["first", "balanced", "thrifty"])
def test_one_gpu_leaves_no_choice(urgency: str) -> None:
    (only,) = layouts(Work(5, 1.0), 1, 1)
    assert advised([only], urgency) is only  # type: ignore[arg-type]
