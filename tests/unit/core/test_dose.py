from __future__ import annotations

import math

import pytest
import torch

from vitreous.core.dose import (
    OPTIMAL_EXPOSURES,
    critical_exposure,
    dose_filter,
    dose_weights,
    optimal_exposure,
    voltage_scale,
)


def test_critical_exposure_is_the_published_curve():
    k = torch.tensor([1 / 20, 1 / 10, 1 / 3], dtype=torch.float64)
    expected = [0.24499 * float(x) ** -1.6649 + 2.8141 for x in k]
    assert critical_exposure(k).tolist() == pytest.approx(expected)
    # Grant & Grigorieff: high resolution (3 A) is gone after a few e/A^2, low resolution lasts for tens
    assert expected[2] < 5 < 30 < expected[0]


def test_zero_frequency_never_fades():
    k = torch.zeros(1, dtype=torch.float64)
    assert dose_filter(k, torch.tensor([1e4], dtype=torch.float64)).item() == 1.0


@pytest.mark.parametrize(("voltage", "scale"), [(300.0, 1.0), (200.0, 0.8), (100.0, 0.64)])
def test_voltage_scale(voltage, scale):
    assert voltage_scale(voltage) == pytest.approx(scale)


def test_voltage_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        voltage_scale(0.0)


def test_optimal_exposure_maximises_snr_of_a_sum():
    # signal of a sum to exposure N: int_0^N exp(-n/2Ne) dn, noise sqrt(N)
    n = torch.linspace(0.01, 8.0, 80_000, dtype=torch.float64)
    snr = 2 * (1 - torch.exp(-n / 2)) / n.sqrt()
    assert n[snr.argmax()].item() == pytest.approx(OPTIMAL_EXPOSURES, abs=1e-3)
    k = torch.tensor([0.2], dtype=torch.float64)
    assert torch.allclose(optimal_exposure(k, 200.0), OPTIMAL_EXPOSURES * critical_exposure(k, 200.0))


def test_filter_halves_power_as_defined():
    k = torch.tensor([0.25], dtype=torch.float64)
    ne = critical_exposure(k)
    assert dose_filter(k, ne).item() ** 2 == pytest.approx(math.exp(-1))


def test_weights_keep_noise_power_and_beat_any_other(generator):
    k = torch.linspace(0.0, 0.5, 33, dtype=torch.float64)
    exposure = torch.arange(1, 41, dtype=torch.float64) * 1.5
    weights = dose_weights(k, exposure, 300.0)
    assert weights.shape == (40, 33)
    assert torch.allclose(weights.square().sum(0), torch.ones(33, dtype=torch.float64))
    signal = dose_filter(k, exposure)
    best = (weights * signal).sum(0)
    other = torch.rand(40, 33, generator=generator, dtype=torch.float64)
    other = other / other.square().sum(0).sqrt()
    assert (best >= (other * signal).sum(0)).all()


def test_pre_exposure_cancels_and_nothing_underflows():
    k = torch.tensor([0.0, 0.3, 1.0])
    exposure = torch.arange(1, 5, dtype=torch.float32)
    weights = dose_weights(k, exposure + 2000.0)
    assert torch.isfinite(weights).all()
    assert torch.allclose(weights, dose_weights(k, exposure), atol=1e-4)
