from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.core.errors import InputError
from vitreous.runtime.gpu_map import (
    Worker,
    devices_of_ranks,
    devices_of_threads,
    parse_gpu_map,
    plan_workers,
    sharing,
)


@pytest.mark.parametrize(
    ("text", "expected"), [("", []), ("0", [[0]]), ("0:1", [[0], [1]]), ("0,1:2,3", [[0, 1], [2, 3]])]
)
def test_gpu_map_as_relion_writes_it(text: str, expected: list[list[int]]) -> None:
    assert parse_gpu_map(text) == expected


@pytest.mark.parametrize("text", ["a", "0;1", "0:", "-1", "0.5"])
def test_bad_gpu_map_is_the_users_fault(text: str) -> None:
    with pytest.raises(InputError, match="--gpu"):
        parse_gpu_map(text)


def of_threads(text: str, ranks: int, threads: int) -> list[list[int]]:
    """RELION's own examples speak of threads: the device of each, by rank, on a machine of four."""
    return [devices_of_threads(devices, threads) for devices in devices_of_ranks(text, ranks, 4)]


def test_nothing_named_is_all_devices_spread_evenly() -> None:
    assert devices_of_ranks("", 2, 4) == [[0, 1], [2, 3]]
    assert devices_of_ranks("", 3, 4) == [[0, 1], [2], [3]]
    assert devices_of_ranks("", 1, 4) == [[0, 1, 2, 3]]
    assert devices_of_ranks("", 6, 4) == [[0], [1], [2], [3], [0], [1]]
    assert of_threads("", 2, 4) == [[0, 0, 1, 1], [2, 2, 3, 3]]


def test_one_device_a_rank() -> None:
    assert of_threads("2:3", 2, 1) == [[2], [3]]


def test_repeated_ids_get_more_threads() -> None:
    assert of_threads("0,1,1,2:3", 2, 4) == [[0, 1, 1, 2], [3, 3, 3, 3]]
    assert Counter(of_threads("0,1,1,2", 1, 8)[0]) == {0: 2, 1: 4, 2: 2}


def test_threads_spread_as_evenly_as_can_be() -> None:
    first, second, third = of_threads("2:2:1,3", 3, 3)
    assert (first, second) == ([2, 2, 2], [2, 2, 2])
    assert sorted(Counter(third).values()) == [1, 2]
    assert set(third) == {1, 3}


def test_a_list_without_colons_goes_to_every_rank() -> None:
    assert of_threads("0,1", 2, 2) == [[0, 1], [0, 1]]


def test_ranks_that_are_not_named_take_the_named_ones_devices() -> None:
    assert devices_of_ranks("2:3", 4, 4) == [[2], [3], [2], [3]]


def test_workers_are_a_process_a_rank_and_device() -> None:
    assert plan_workers("0,1,1,2:3", ranks=2, threads=4, available=4) == [
        Worker(0, 0, 1), Worker(0, 1, 2), Worker(0, 2, 1), Worker(1, 3, 4),
    ]  # fmt: skip
    assert plan_workers("", ranks=2, threads=3, available=0) == [Worker(0, None, 3), Worker(1, None, 3)]
    assert plan_workers("", ranks=1, threads=3, available=4, cpu=True) == [Worker(0, None, 3)]


def test_who_shares_a_device() -> None:
    workers = plan_workers("2:2:1,3", ranks=3, threads=3, available=4)
    assert [(one.device, sharing(workers, one)) for one in workers] == [(2, 2), (2, 2), (1, 1), (3, 1)]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="GPU 7 is asked for, and this machine has 4 CUDA GPUs"):
        plan_workers("0:7", ranks=1, threads=1, available=4)
    with pytest.raises(InputError, match="no CUDA GPU"):
        plan_workers("0", ranks=1, threads=1, available=0)
    with pytest.raises(InputError, match="both"):
        plan_workers("0", ranks=1, threads=1, available=4, cpu=True)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=5), st.integers(1, 9), st.integers(1, 9))
def test_every_rank_works_and_every_device_it_names(named: list[list[int]], ranks: int, threads: int) -> None:
    text = ":".join(",".join(map(str, part)) for part in named)
    workers = plan_workers(text, ranks=ranks, threads=threads, available=4)
    for rank, devices in enumerate(devices_of_ranks(text, ranks, 4)):
        mine = [one for one in workers if one.rank == rank]
        assert {one.device for one in mine} == set(devices)
        assert sum(one.threads for one in mine) == max(threads, len(set(devices)))
