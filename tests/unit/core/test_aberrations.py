"""Zernike aberrations: RELION's numbering, orthogonality, and what shifts and tilts are."""

from __future__ import annotations

import math

import pytest
import torch

from vitreous.core.aberrations import beam_tilt_phase, even_indices, even_phase, odd_indices, odd_phase, zernike
from vitreous.core.ctf import Defocus, Microscope, ctf

AXIS = torch.linspace(-0.25, 0.25, 21, dtype=torch.float64)
KY, KX = torch.meshgrid(AXIS, AXIS, indexing="ij")


def test_numbering():
    assert [odd_indices(i) for i in range(7)] == [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3), (-5, 5)]
    assert [even_indices(i) for i in range(6)] == [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4)]


def test_polynomials_are_orthogonal_on_the_disc():
    axis = torch.linspace(-1, 1, 401, dtype=torch.float64)
    ky, kx = torch.meshgrid(axis, axis, indexing="ij")
    inside = torch.hypot(ky, kx) <= 1
    kinds = [odd_indices(i) for i in range(6)] + [even_indices(i) for i in range(9)]
    values = torch.stack([zernike(m, n, ky, kx)[inside] for m, n in kinds])
    gram = values @ values.T / inside.sum()
    off = gram - torch.diag(gram.diag())
    assert float(off.abs().max()) < 0.01
    expected = torch.tensor([(1.0 if m == 0 else 0.5) / (n + 1) for m, n in kinds], dtype=torch.float64)
    torch.testing.assert_close(gram.diag(), expected, rtol=0.02, atol=0.0)


def test_first_odd_pair_is_a_shift_and_odd_is_odd():
    assert torch.allclose(odd_phase([2.0, 3.0], KY, KX), 2.0 * KY + 3.0 * KX)
    phase = odd_phase([0.1, 0.2, 30.0, 40.0, 50.0, 60.0], KY, KX)
    assert torch.allclose(phase, -phase.flip(0, 1))
    even = even_phase([0.1, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0, 90.0], KY, KX)
    assert torch.allclose(even, even.flip(0, 1))


def test_a_beam_tilt_is_coma():
    """A tilt is Z(1, 3) but for a shift: 3 rho^3 - 2 rho times the direction's cosine."""
    scope = Microscope(300.0, 2.7, 0.1)
    phase = beam_tilt_phase((0.5, 0.0), scope.cs, scope.wavelength, KY, KX)
    strength = -2 * math.pi * 2.7e7 * scope.wavelength**2 * 0.5e-3
    assert torch.allclose(phase, strength / 3 * (odd_phase([0, 0, 0, 0, 1.0], KY, KX) + odd_phase([0, 2.0], KY, KX)))


def test_an_even_term_is_an_error_in_defocus():
    """Z(0, 2) = 2 rho^2 - 1: the same CTF as another defocus and phase shift."""
    one = torch.ones(1, dtype=torch.float64)
    bent = Microscope(300.0, 2.7, 0.1, (0.0, 0.0, 7.0))
    plain = Microscope(300.0, 2.7, 0.1)
    defocus = 12000.0 - 14.0 / (math.pi * plain.wavelength)
    a = ctf((32, 32), 2.0, bent, Defocus(12000 * one, 12000 * one, 0 * one, 0 * one), dtype=torch.float64)
    b = ctf((32, 32), 2.0, plain, Defocus(defocus * one, defocus * one, 0 * one, math.degrees(7.0) * one))
    assert float((a - b).abs().max()) == pytest.approx(0.0, abs=1e-6)
