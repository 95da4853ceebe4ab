from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Microscope
from vitreous.core.fourier import radius_grid, shell_mean
from vitreous.methods.simulation.ice import Ice, IceNoise, decorrelation_rate, power_spectrum
from vitreous.methods.simulation.optics import Envelope, Focus, contrast_transfer, damage, damage_of_sum, envelope

SCOPE = Microscope(300.0, 2.7, 0.1)
NONE = Envelope(0.0, 0.0, 0.0)


def test_underfocused_protein_is_dark_at_low_resolution():
    transfer = contrast_transfer((64, 64), 2.0, SCOPE, Focus(15000, 15000), NONE)
    assert transfer[0, 0] < 0
    assert transfer[0, 2] < transfer[0, 0]
    # -2 sigma Q0 at zero.
    assert transfer[0, 0].item() == pytest.approx(-2 * 6.526e-4 * 0.1, rel=1e-3)


def test_phase_plate_darkens_the_origin():
    plain, shifted = (contrast_transfer((32, 32), 2.0, SCOPE, Focus(5000, 5000, 0, p), NONE) for p in (0.0, 90.0))
    assert shifted[0, 0] / plain[0, 0] > 9


def test_envelope_falls_with_frequency_and_incoherence():
    k = torch.linspace(0, 0.4, 50, dtype=torch.float64)
    good = envelope(k, 15000, SCOPE, Envelope(30.0, 50.0, 0.01))
    assert good[0] == 1
    assert (good.diff() < 0).all()
    assert (envelope(k, 15000, SCOPE, Envelope(30.0, 50.0, 0.2))[1:] < good[1:]).all()
    assert envelope(k, 15000, SCOPE, Envelope(40.0, 0.0, 0.0))[-1] == pytest.approx(np.exp(-10 * 0.16))


def test_damage_is_the_mean_of_grant_and_grigorieff():
    k = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    ne = 0.24499 * np.array([0.1, 0.3]) ** -1.6649 + 2.8141
    exposures = np.linspace(5.0, 8.0, 3001)
    expected = np.exp(-exposures[:, None] / (2 * ne)).mean(0)
    got = damage(k, 5.0, 8.0, 300.0)
    assert got[0] == 1
    assert np.allclose(got[1:].numpy(), expected, rtol=1e-5)
    assert damage(k, 5.0, 5.0, 300.0)[2] == pytest.approx(np.exp(-5 / (2 * ne[1])))


def test_dose_weighted_sum_keeps_the_root_mean_square():
    k = torch.tensor([0.05, 0.2], dtype=torch.float64)
    ne = 0.24499 * np.array([0.05, 0.2]) ** -1.6649 + 2.8141
    q = np.exp(-np.linspace(2.0, 42.0, 4001)[:, None] / (2 * ne))
    weighted = damage_of_sum(k, 2.0, 42.0, 300.0, weighted=True)
    plain = damage_of_sum(k, 2.0, 42.0, 300.0, weighted=False)
    assert np.allclose(weighted.numpy(), np.sqrt((q**2).mean(0)), rtol=1e-3)
    assert np.allclose(plain.numpy(), q.mean(0), rtol=1e-3)
    assert (weighted > plain).all()


def test_ice_has_the_power_it_should():
    ice = Ice(thickness=500.0)
    powers = []
    for seed in range(6):
        image_ft = IceNoise((128, 128), 1.5, ice, np.random.default_rng(seed)).expose(1e-6)
        # Power spectral density of an image: |rfft|^2 pixel^2 / n_pixels.
        powers.append(shell_mean(image_ft.abs().double() ** 2, 128) * 1.5**2 / 128**2)
    measured = torch.stack(powers).mean(0)[5:60]
    k = torch.arange(5, 60, dtype=torch.float64) / (128 * 1.5)
    assert (measured / power_spectrum(k, ice) - 1).abs().mean() < 0.06


def test_ice_flows_as_measured():
    ice = Ice(thickness=300.0)
    radius = radius_grid((128, 128), 1.5)
    noise = IceNoise((128, 128), 1.5, ice, np.random.default_rng(0))
    one, two = noise.expose(2.0), noise.expose(2.0)
    for low, high in ((0.02, 0.05), (0.15, 0.17), (0.25, 0.27)):
        ring = (radius > low) & (radius < high)
        norm = (one[ring].abs().square().sum() * two[ring].abs().square().sum()).sqrt()
        correlation = (one * two.conj()).real[ring].sum() / norm
        k = torch.tensor([(low + high) / 2], dtype=torch.float64)
        assert correlation.item() == pytest.approx(torch.exp(-2 * decorrelation_rate(k, ice)).item(), abs=0.06)


def test_frozen_ice_stays():
    noise = IceNoise((32, 32), 2.0, Ice(300.0, flow=0.0), np.random.default_rng(0))
    assert torch.allclose(noise.expose(1.0), noise.expose(5.0))
