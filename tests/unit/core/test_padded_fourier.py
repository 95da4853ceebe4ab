from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import to_fourier, to_real
from vitreous.core.padded_fourier import to_density, to_oversampled, wrap


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("padding", [1, 2, 3])
def test_oversampled_spectrum_is_that_of_the_padded_box(padding, ndim, generator):
    box, reach = 8, 5 if padding == 1 else 8  # beyond Nyquist where there is no padding
    padded = padding * box
    values = torch.randn(2, *(box,) * ndim, generator=generator, dtype=torch.float64)
    found = to_oversampled(values, padded, 2 * reach + 1, reach + 1, ndim)
    before = padded // 2 - box // 2
    whole = to_fourier(torch.nn.functional.pad(values, [before, padded - box - before] * ndim), ndim)
    for k in torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * (ndim - 1), torch.arange(reach + 1)):
        there = bool((k.abs() <= padded // 2).all())
        expected = whole[(slice(None), *(k.remainder(padded) if there else 0 * k))] * there
        index = (slice(None), *(k[:-1] + reach), k[-1])
        torch.testing.assert_close(found[index], expected, rtol=1e-12, atol=1e-12)


def test_density_is_the_middle_of_the_padded_one(generator):
    box, padded = 6, 12
    data = to_fourier(torch.randn(padded, padded, padded, generator=generator, dtype=torch.float64), 3)
    torch.testing.assert_close(
        to_density(data, box), to_real(data, (padded,) * 3, 3)[3:9, 3:9, 3:9], rtol=1e-12, atol=1e-12
    )


def test_wrapping_leaves_nyquist_out():
    centred = torch.arange(-4, 5)
    assert wrap(centred, 0, 8).tolist() == [0, 1, 2, 3, 0, -3, -2, -1]
    assert wrap(centred, 0, 12).tolist() == [0, 1, 2, 3, 4, 0, 0, 0, -4, -3, -2, -1]
