from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.methods.picking.log_filter import log_response, log_response_reference, scale_ladder


@pytest.mark.parametrize("diameter", [40.0, 75.0])
def test_fft_form_is_the_real_space_convolution(diameter):
    image = np.random.default_rng(0).normal(size=(90, 84))
    fast = log_response(torch.from_numpy(image), 4.0, diameter).numpy()
    np.testing.assert_allclose(fast, log_response_reference(image, 4.0, diameter), atol=1e-5 * np.abs(fast).max())


def test_a_disc_answers_most_at_its_own_diameter():
    y, x = np.mgrid[:200, :200] - 100
    disc = torch.from_numpy((np.hypot(y, x) <= 20).astype(float))  # 40 px across, 2 A a pixel: 80 A
    diameters = np.arange(50.0, 130.0, 2.0)
    responses = [float(log_response(disc, 2.0, float(d))[100, 100]) for d in diameters]
    assert diameters[int(np.argmax(responses))] == pytest.approx(80.0, abs=3.0)
    response = log_response(disc, 2.0, 80.0)
    assert divmod(int(response.argmax()), 200) == (100, 100)


def test_a_flat_image_gives_nothing():
    assert log_response(torch.full((64, 64), 7.0, dtype=torch.float64), 3.0, 60.0).abs().max() < 1e-12


def test_ctf_weight_turns_contrast_back():
    """A blob imaged overfocused (reversed contrast) is found bright with the CTF as weight, dark without."""
    y, x = np.mgrid[:128, :128] - 64
    blob = torch.from_numpy(np.exp(-(y**2 + x**2) / (2 * 6.0**2)))
    values = (-20000.0, -20000.0, 0.0, 0.0)
    weight = ctf(
        (128, 128),
        4.0,
        Microscope(300.0, 2.7, 0.07),
        Defocus(*(torch.tensor([v]) for v in values)),
        dtype=torch.float64,
    )[0]
    seen = torch.fft.irfft2(torch.fft.rfft2(blob) * weight, s=(128, 128))
    assert int(log_response(seen, 4.0, 70.0, weight).argmax()) == 64 * 128 + 64
    assert log_response(seen, 4.0, 70.0)[64, 64] < 0


def test_scale_ladder_covers_the_range_without_gaps():
    ladder = scale_ladder(100.0, 190.0)
    assert ladder[0] == pytest.approx(100.0)
    assert ladder[-1] == pytest.approx(190.0)
    assert np.all(np.diff(np.log(ladder)) <= np.log(1.2) + 1e-12)
    assert scale_ladder(120.0, 120.0) == [120.0]
