"""Local FSC: against plain sums, against known agreement, the fast form against the reference."""

from __future__ import annotations

import itertools

import pytest
import torch

from vitreous.core.fourier import rescale
from vitreous.kernels.local_signal import bands, chance_variance, damp_bands, local_fsc

BOX = 32


def noise(generator, n=2, box=BOX):
    return torch.randn(n, box, box, box, generator=generator, dtype=torch.float64)


def coloured(maps, falloff=6.0):
    """Power that falls with frequency, as a map's does."""
    k = torch.fft.fftfreq(maps.shape[-1], dtype=torch.float64) * maps.shape[-1]
    squares = k.square()[:, None, None] + k.square()[:, None] + k[: maps.shape[-1] // 2 + 1].abs().square()
    return torch.fft.irfftn(
        torch.fft.rfftn(maps, dim=(1, 2, 3)) * torch.exp(-squares / falloff**2), s=maps.shape[1:], dim=(1, 2, 3)
    )


@pytest.mark.parametrize(("max_shell", "relative", "least"), [(16, 0.25, 3.0), (9, 0.15, 2.0), (1, 0.25, 3.0)])
def test_bands_sum_to_one(max_shell, relative, least):
    every = bands(max_shell, relative=relative, least=least)
    radii = torch.linspace(0, max_shell, 101, dtype=torch.float64)
    assert torch.allclose(sum(band.at(radii) for band in every), torch.ones(101, dtype=torch.float64))
    assert all(float(band.at(torch.tensor(max_shell + 1.0))) == 0.0 for band in every)
    widths = [band.high - band.low for band in every[1:-1]]
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(widths))


@pytest.mark.parametrize("ratio", [1.0, 0.5, -1.0])
def test_halves_in_one_ratio_agree_alike_everywhere(ratio, generator):
    first = noise(generator, 1)[0]
    for found in local_fsc(torch.stack([first, ratio * first]), bands(12), reach=0.75):
        assert torch.allclose(found.values, torch.full_like(found.values, 2 * ratio / (1 + ratio**2)), atol=1e-9)


def test_reference_is_the_sum_it_says(generator):
    """At a few voxels, by summing the band-passed maps with an explicit periodic Gaussian."""
    maps = coloured(noise(generator))
    band = bands(14)[3]
    found = next(local_fsc(maps, [band], reach=0.6))
    a, b = torch.fft.irfftn(torch.fft.rfftn(maps, dim=(1, 2, 3)) * band.window(BOX), s=(BOX,) * 3, dim=(1, 2, 3))
    sigma = 0.6 * BOX / band.centre
    for voxel in ((0, 0, 0), (16, 16, 16), (5, 20, 31)):
        axes = []
        for centre in voxel:
            away = torch.arange(BOX, dtype=torch.float64) - centre
            axes.append(sum(torch.exp(-((away + BOX * turn).square()) / (2 * sigma**2)) for turn in (-2, -1, 0, 1, 2)))
        window = axes[0][:, None, None] * axes[1][:, None] * axes[2]
        expected = (window * a * b).sum() / (window * 0.5 * (a * a + b * b)).sum()
        assert float(found.values[voxel]) == pytest.approx(float(expected), abs=1e-6)


def test_agreement_is_found_where_it_is(generator):
    """Halves that share their signal in the left half of the box alone."""
    box = 64
    common, first, second = noise(generator, 3, box)
    left = (torch.arange(box) < box // 2).double()
    halves = torch.stack([common * left + first * (1 - left), common * left + second * (1 - left)])
    # a window of a low band reaches over the border, and the last band, cut off at once, rings over it
    for found in list(local_fsc(halves, bands(28), reach=0.75))[5:-1]:
        assert float(found.values[..., 14:18].min()) > 0.99
        assert abs(float(found.values[..., 46:50].mean())) < 4 * found.variance**0.5


@pytest.mark.parametrize("number", [2, 4, 6])
def test_chance_variance_is_that_of_noise(number, generator):
    band = bands(16)[number]
    trials = [next(local_fsc(noise(generator), [band], reach=0.75)).values for _ in range(12)]
    measured = torch.stack(trials).square().mean()
    assert float(measured) == pytest.approx(chance_variance(band, BOX, 0.75), rel=0.15)


def test_chance_variance_does_not_depend_on_the_box():
    """The window is as many wavelengths wide in any box."""
    band = bands(8)[2]
    assert chance_variance(band, 64, 0.75) == pytest.approx(chance_variance(band, 32, 0.75), rel=1e-6)


def test_fast_form_is_the_reference(generator):
    box = 48
    common, first, second = coloured(noise(generator, 3, box), 12.0)
    place = torch.exp(-((torch.arange(box).double() - 20).square()) / 100)
    halves = torch.stack([common * place + 0.3 * first, common * place + 0.3 * second])
    every = bands(24)
    exact = list(local_fsc(halves, every, reach=0.75))
    quick = list(local_fsc(halves.float(), every, reach=0.75))
    assert min(one.values.shape[-1] for one in quick) < box // 2  # low bands do go on small grids
    for right, ours in zip(exact, quick, strict=True):
        assert ours.variance == right.variance
        same = right.values if ours.values.shape == right.values.shape else None
        if same is None:
            same = rescale(torch.fft.fftshift(right.values), tuple(ours.values.shape))
            same = torch.fft.ifftshift(same)
        assert float((ours.values - same).abs().max()) < 2e-3, right.band
    gains = [[(one.band, one.values.clamp(min=0.0)) for one in found] for found in (exact, quick)]
    right = torch.fft.irfftn(damp_bands(torch.fft.rfftn(halves[0]), gains[0], box), s=(box,) * 3)
    ours = torch.fft.irfftn(damp_bands(torch.fft.rfftn(halves[0].float()), gains[1], box), s=(box,) * 3)
    assert float((ours - right).norm() / right.norm()) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gain_of_one_changes_nothing(dtype, generator):
    """But for what lies beyond the last band."""
    halves = noise(generator)
    transform = torch.fft.rfftn(halves[0])
    k = torch.fft.fftfreq(BOX, dtype=torch.float64) * BOX
    radius = (k.square()[:, None, None] + k.square()[:, None] + k[: BOX // 2 + 1].square()).sqrt()
    transform = transform * (radius <= 12)
    found = local_fsc(halves.to(dtype), bands(12), reach=0.75)
    gains = [(one.band, torch.ones_like(one.values)) for one in found]
    cast = torch.complex64 if dtype == torch.float32 else torch.complex128
    damped = damp_bands(transform.to(cast), gains, BOX)
    assert float((damped - transform).abs().max() / transform.abs().max()) < (1e-5 if dtype == torch.float32 else 1e-12)


def test_empty_maps_agree_nowhere(generator):
    for found in local_fsc(torch.zeros(2, BOX, BOX, BOX), bands(12), reach=0.75):
        assert torch.equal(found.values, torch.zeros_like(found.values))
