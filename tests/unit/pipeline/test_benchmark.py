from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.core.errors import InputError
from vitreous.pipeline.benchmark.settings import Settings, scaled, sweep


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(ranks=8, threads=4), "more than the 16 physical cores. Take -n 8 -j 2 or -n 4 -j 4"),
        (Settings(ranks=20, threads=1), "Take -n 16 -j 1"),
        (Settings(ranks=1, threads=40), "Take -n 1 -j 16"),
        (Settings(device="cuda", gpus=4, ranks=6), "6 ranks are no multiple of 4 GPUs. Take -n 4 or -n 8"),
        (Settings(device="cuda", gpus=4, ranks=6, threads=4), "Take -n 4."),
        (Settings(device="cuda", gpus=20, ranks=3, threads=2), "Take -g 16 -n 16 -j 1"),
        (Settings(device="cuda", gpus=4, ranks=8, threads=4), "Take -n 8 -j 2 or -n 4 -j 4"),
        (Settings(device="cuda", ranks=1), "needs the number of GPUs"),
        (Settings(gpus=2, ranks=2), "-d cpu"),
    ],
)
def test_what_does_not_hold_names_what_would(settings: Settings, words: str) -> None:
    with pytest.raises(InputError, match=words):
        settings.check(16)


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from([0, 1, 2, 4]), st.integers(4, 32))
def test_the_nearest_settings_do_hold(ranks: int, threads: int, gpus: int, cores: int) -> None:
    settings = Settings(device="cuda" if gpus else "cpu", gpus=gpus, ranks=ranks, threads=threads)
    try:
        settings.check(cores)
    except InputError as error:
        if "physical cores" in error.what:
            for part in error.remedy.removeprefix("Take ").rstrip(".").split(" or "):
                _, n, _, j = part.split()
                Settings(device=settings.device, gpus=gpus, ranks=int(n), threads=int(j)).check(cores)


def test_the_benchmarks_set_at_any_scale() -> None:
    whole = scaled("2d", 1.0)
    assert (whole.particles, whole.box, whole.classes) == (105_247, 360, 200)
    small = scaled("3d", 0.002)
    assert (small.particles, small.classes) == (210, 2)
    assert small.box % 2 == 0
    assert small.box * small.pixel_size == pytest.approx(360 * 1.34)


def test_a_sweep_stays_within_the_machine() -> None:
    tried = sweep(Settings(), 6, (0, 8))
    assert {(one.ranks, one.threads) for one in tried} >= {(1, 6), (6, 1), (2, 2), (1, 1)}
    assert all(one.ranks * one.threads <= 6 for one in tried)
    assert all(one.ranks % 2 == 0 for one in sweep(Settings(device="cuda", gpus=2, ranks=2), 6, (0,)))
