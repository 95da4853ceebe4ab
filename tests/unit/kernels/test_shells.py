from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import shell_indices
from vitreous.kernels import backproject as bp
from vitreous.kernels import shells as sh
from vitreous.kernels.shells import reference

BOX = 16


def sums(padding, radius, generator, dtype=torch.float32):
    acc = bp.empty_volume(BOX, padding, radius, dtype=dtype)
    acc.data = torch.randn(acc.data.shape, generator=generator, dtype=acc.data.dtype)
    acc.weight = (torch.rand(acc.weight.shape, generator=generator, dtype=dtype) - 0.2).clamp(min=0.0)
    return acc


@pytest.mark.parametrize("radius", [5, 8])
@pytest.mark.parametrize("padding", [1, 2, 3])
def test_one_walk_gives_what_the_whole_volume_gives(padding, radius, generator):
    acc = sums(padding, radius, generator)
    for found, expected in zip(sh.shell_totals(acc), reference.shell_totals(acc), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    prior, floor = torch.rand(BOX // 2 + 1, generator=generator), 0.1 * torch.rand(BOX // 2 + 1, generator=generator)
    used = torch.rand(BOX // 2 + 1, generator=generator) > 0.2
    found, expected = sh.divide(acc, prior, floor, used), reference.divide(acc, prior, floor, used)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found != 0).sum() > 100


def test_shells_of_the_map_itself(generator):
    """Without padding the totals are those over the rfft grid's shells, its mates counted."""
    acc = sums(1, 8, generator, torch.float64)
    acc.weight[:, :, 0] = 0.0  # the plane that both halves share
    total, count = sh.shell_totals(acc)
    shells, axis = shell_indices(BOX, 3), torch.fft.fftfreq(BOX, 1 / BOX).long() + acc.centre
    inner = acc.weight[axis][:, axis][:, :, : BOX // 2]
    for shell in range(BOX // 2):  # the last shell's own Nyquist planes are stored otherwise
        assert float(total[shell]) == pytest.approx(2 * float(inner[shells[:, :, : BOX // 2] == shell].sum()))
    assert count[:2].tolist() == [1, 18]


def test_threads_do_not_change_the_bits(generator):
    acc, curve = sums(2, 8, generator), torch.rand(BOX // 2 + 1, generator=generator)
    used = torch.ones(BOX // 2 + 1, dtype=torch.bool)
    one = *sh.shell_totals(acc), sh.divide(acc, curve, curve, used)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = *sh.shell_totals(acc), sh.divide(acc, curve, curve, used)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
