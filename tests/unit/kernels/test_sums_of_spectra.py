from __future__ import annotations

import pytest
import torch

from vitreous.kernels.sums_of_spectra import add_power, reference, weigh


@pytest.mark.parametrize("n_curves", [1, 2, 5])
@pytest.mark.parametrize("height", [31, 32, 70])
def test_weighted_transforms_are_those_of_the_reference(generator, height, n_curves):
    transforms = torch.randn(n_curves, height, 25, dtype=torch.complex64, generator=generator)
    curves = torch.randn(n_curves, 200, generator=generator)
    ky, kx = torch.fft.fftfreq(height) * 250, torch.fft.rfftfreq(48) * 250
    exact = [transform.to(torch.complex128) for transform in transforms]
    wanted = reference.weigh(exact, curves.double(), ky, kx)
    got = weigh(list(transforms.clone()), curves, ky, kx)
    torch.testing.assert_close(got.to(torch.complex128), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [(slice(0, 9), slice(23, 31)), (slice(0, 16), slice(16, 31))])
def test_power_is_that_of_the_reference(generator, rows):
    transform = torch.randn(31, 25, dtype=torch.complex64, generator=generator)
    n = sum(run.stop - run.start for run in rows)
    power = torch.rand(n, 19, generator=generator)
    wanted = power.double()
    reference.add_power(wanted, transform.to(torch.complex128), rows)
    add_power(power, transform, rows)
    torch.testing.assert_close(power.double(), wanted)
