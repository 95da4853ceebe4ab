from __future__ import annotations

import numpy as np
import pytest

from vitreous.core.scattering import (
    ICE_NUMBER_DENSITY,
    ICE_POTENTIAL,
    atom_potential,
    form_factor,
    interaction_constant,
    water_potential,
)


def test_form_factor_at_zero_matches_the_table():
    # International Tables C 4.3.1.1: f(0) of neutral C 2.509, O 1.983, Fe 7.165 A.
    zero = np.zeros(1)
    for element, expected in {"C": 2.509, "O": 1.983, "Fe": 7.165}.items():
        assert form_factor(element, zero)[0] == pytest.approx(expected, rel=2e-3)


def test_mott_bethe_limit():
    # Far from the centre the nucleus alone scatters: f = Z / (8 pi^2 a0 s^2), s = k/2, a0 = 0.52918 A.
    k = np.array([3.6])
    for element, charge in {"C": 6, "N": 7, "O": 8}.items():
        nucleus = charge / (8 * np.pi**2 * 0.52918 * (k / 2) ** 2)
        assert 0.7 < form_factor(element, k)[0] / nucleus[0] < 1.0


def test_unknown_element_raises():
    with pytest.raises(ValueError, match="Xx"):
        form_factor("Xx", np.zeros(1))


def test_interaction_constant():
    # Kirkland, table: 6.526e-4 rad/(V A) at 300 kV, 7.288e-4 at 200 kV.
    assert interaction_constant(300) == pytest.approx(6.526e-4, rel=1e-3)
    assert interaction_constant(200) == pytest.approx(7.288e-4, rel=1e-3)


def test_mean_inner_potential_of_ice_is_its_molecules():
    assert ICE_NUMBER_DENSITY * water_potential(np.zeros(1))[0] == pytest.approx(ICE_POTENTIAL, rel=5e-3)


def test_average_protein_stands_out_of_ice_by_three_volts():
    zero = np.zeros(1)
    parts = {"C": 4.94, "N": 1.35, "O": 1.48}
    contrast = sum(n * atom_potential(e, zero, hydrogens=True)[0] for e, n in parts.items())
    vacuum = sum(n * atom_potential(e, zero, hydrogens=True, solvent=False)[0] for e, n in parts.items())
    volume = (vacuum - contrast) / ICE_POTENTIAL
    # 110 Da a residue at 0.73 cm^3/g is 133 A^3.
    assert volume == pytest.approx(133, rel=0.06)
    assert 2.5 < contrast / volume < 4.0
