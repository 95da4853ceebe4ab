from __future__ import annotations

import pytest
import torch

from vitreous.kernels.add_turned import add_turned, reference


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 5), (2, 17, 33)])
def test_one_walk_gives_what_the_steps_give(shape, anew, generator):
    patches, height, half = shape
    source = torch.randn(shape, dtype=torch.complex64, generator=generator)
    row, column = (torch.polar(torch.ones(n), torch.randn(n, generator=generator)) for n in (height, half))
    # one group of several, as patches hold them: its patches do not lie side by side
    groups = torch.randn(patches, 2, height, half, dtype=torch.complex64, generator=generator)
    if anew:
        groups[:, 1] = torch.nan
    wanted = groups[:, 1].to(torch.complex128)
    wide = (value.to(torch.complex128) for value in (source, row, column))
    reference.add_turned(wanted, *wide, anew)
    untouched = groups[:, 0].clone()
    add_turned(groups[:, 1], source, row, column, anew=anew)
    torch.testing.assert_close(groups[:, 1].to(torch.complex128), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(groups[:, 0], untouched)
