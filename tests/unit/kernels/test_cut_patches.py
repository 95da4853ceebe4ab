from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.kernels.cut_patches import cut_patches, reference


@settings(deadline=None)  # the first call may compile
@given(
    shape=st.tuples(st.integers(8, 40), st.integers(8, 40)), size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    corners=st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60)), min_size=1, max_size=4),
)  # fmt: skip
def test_one_walk_gives_what_the_steps_give(shape, size, corners):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(*shape, generator=generator) + 5.0
    window = tuple(torch.rand(n, generator=generator) for n in size)
    got = torch.full((len(corners), *size), torch.nan)
    wanted = torch.empty(len(corners), *size, dtype=torch.float64)
    cut_patches(image, corners, window, got)
    reference.cut_patches(image.double(), corners, tuple(edge.double() for edge in window), wanted)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)
