from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.kernels.take_frame import reference, take_frame


@settings(deadline=None)  # the first call may compile
@given(
    height=st.integers(1, 40), width=st.integers(1, 70), factor=st.integers(1, 4),
    gained=st.booleans(), seed=st.integers(0, 99), threads=st.integers(1, 3),
)  # fmt: skip
def test_one_walk_gives_what_the_steps_give(height, width, factor, gained, seed, threads):
    generator = torch.Generator().manual_seed(seed)
    raw, total = torch.randn(2, height, width, generator=generator)
    gain = 0.5 + torch.rand(height, width, generator=generator) if gained else None
    binned = torch.full((height // factor, width // factor), torch.nan) if min(height, width) >= factor else None
    frame = torch.empty_like(raw)
    wanted = [torch.empty_like(raw).double(), total.double(), None if binned is None else binned.double()]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert take_frame(raw, gain, frame, total, binned, factor)
    finally:
        torch.set_num_threads(before)
    assert reference.take_frame(raw.double(), gain, wanted[0], wanted[1], wanted[2], factor)
    torch.testing.assert_close(frame.double(), wanted[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(total.double(), wanted[1], rtol=1e-6, atol=1e-6)
    if binned is not None:
        torch.testing.assert_close(binned.double(), wanted[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("gained", [False, True])
def test_what_is_no_number_is_seen(value, gained):
    raw = torch.ones(20, 50)
    raw[13, 37] = value
    gain = torch.ones(20, 50) if gained else None
    assert not take_frame(raw, gain, torch.empty(20, 50), torch.zeros(20, 50))
