from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.core.masks import soft_sphere
from vitreous.kernels.place import place, reference


def inputs(box, n, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, box, box, generator=generator) + 3.0
    scale = 0.5 + torch.rand(n, generator=generator)
    shifts = torch.randint(-2 * box, 2 * box, (n, 2), generator=generator)
    return images, scale, shifts, soft_sphere(box, 0.3 * box, edge=2.0), torch.randn(n, box, box, generator=generator)


@settings(deadline=None)  # the first call may compile
@given(box=st.integers(4, 33), n=st.integers(1, 5), seed=st.integers(0, 99), filled=st.booleans())
def test_one_walk_gives_what_the_steps_give(box, n, seed, filled):
    images, scale, shifts, mask, fill = inputs(box, n, seed)
    fast = place(images, scale, shifts, mask, fill if filled else None)
    exact = [values.to(torch.float64) for values in (images, scale, mask, fill)]
    slow = reference.place(exact[0], exact[1], shifts, exact[2], exact[3] if filled else None)
    torch.testing.assert_close(fast[0].double(), slow[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fast[1].double(), slow[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("box", [8, 9])
def test_a_point_is_put_where_the_shift_says(box):
    image = torch.zeros(1, box, box)
    image[0, box // 2 - 2, box // 2 + 1] = 1.0
    whole, masked = place(image, torch.tensor([2.0]), torch.tensor([[2, -1]]), torch.ones(box, box))
    expected = torch.zeros(box, box)
    expected[0, 0] = 2.0
    torch.testing.assert_close(whole[0], expected, rtol=0, atol=0)
    torch.testing.assert_close(masked[0], expected, rtol=0, atol=0)


def test_threads_do_not_change_the_bits():
    given = inputs(32, 7, 1)
    one = place(*given)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = place(*given)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
