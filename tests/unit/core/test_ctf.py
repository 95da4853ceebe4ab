from __future__ import annotations

import math

import torch

from vitreous.core.ctf import CtfTreatment, Defocus, Microscope, ctf, electron_wavelength


def defocus(u, v, angle, phase=0.0):
    return Defocus(*(torch.tensor([x], dtype=torch.float64) for x in (u, v, angle, phase)))


def test_wavelength():
    assert math.isclose(electron_wavelength(300), 0.0196875, rel_tol=1e-4)
    assert math.isclose(electron_wavelength(200), 0.0250793, rel_tol=1e-4)


def test_positive_and_equal_to_amplitude_contrast_at_zero():
    values = ctf((64, 64), 1.0, Microscope(300, 2.7, 0.1), defocus(10000, 10000, 0))
    assert math.isclose(values[0, 0, 0].item(), 0.1, rel_tol=1e-5)
    assert values[0, 0, 1] > values[0, 0, 0]


def test_astigmatism_is_larger_along_its_angle():
    scope = Microscope(300, 0.0, 0.0)
    values = ctf((64, 64), 2.0, scope, defocus(12000, 6000, 90.0), dtype=torch.float64)
    k = 8 / 128
    along_y = math.sin(math.pi * scope.wavelength * 12000 * k * k)
    along_x = math.sin(math.pi * scope.wavelength * 6000 * k * k)
    assert math.isclose(values[0, 8, 0].item(), along_y, rel_tol=1e-9)
    assert math.isclose(values[0, 0, 8].item(), along_x, rel_tol=1e-9)


def test_treatments():
    phase = torch.tensor([0.1, 1.0, 2.0, 4.0, 7.0], dtype=torch.float64)
    sine = torch.sin(phase)
    assert torch.equal(CtfTreatment().values(phase), sine)
    assert torch.equal(CtfTreatment(phase_flipped=True).values(phase), sine.abs())
    assert CtfTreatment(only_flip_phases=True).values(phase).tolist() == [1, 1, 1, -1, 1]
    intact = CtfTreatment(intact_first_peak=True).values(phase)
    assert intact[:2].tolist() == [1, 1]
    assert torch.equal(intact[2:], sine[2:])
