"""How atoms scatter electrons: tabulated form factors, the potential they make, its effect on the wave.

Form factors are the five-Gaussian fits of Peng, Ren, Dudarev and Whelan (1996) Acta Cryst. A52, 257, for neutral
atoms and s up to 2 1/A (International Tables C, 4.3.2.2), as gemmi carries them (`c4322`).
"""

from __future__ import annotations

import math
from functools import lru_cache

import gemmi
import numpy as np
from numpy.typing import NDArray

from vitreous.core.ctf import electron_wavelength

# h^2 / (2 pi m0 e) in V A^2: f(k) in A times this is the Fourier transform of the potential in V A^3.
POTENTIAL_PER_FORM_FACTOR = 47.87801
_ELECTRON_REST_KEV = 510.99895

# Volume (A^3) of solvent that an atom displaces. Fraser, MacRae and Suzuki (1978) J. Appl. Cryst. 11, 693.
DISPLACED_VOLUMES = {"H": 5.15, "C": 16.44, "N": 2.49, "O": 9.13, "P": 5.73, "S": 19.86}
# Mean hydrogens on a heavy atom of protein or nucleic acid and their bond lengths (A), for models without them:
# C:H:N:O of an average protein is 4.94:7.76:1.35:1.48.
IMPLICIT_HYDROGENS = {"C": (1.22, 1.09), "N": (1.1, 1.01), "O": (0.15, 0.98), "S": (0.3, 1.34)}

# Mean inner potential (V) of vitreous ice as a superposition of free water molecules: Vulovic et al. (2013)
# J. Struct. Biol. 183, 19. The same approximation as the form factors, so the contrast is consistent.
ICE_POTENTIAL = 4.5301
# Water molecules per A^3 of amorphous ice of density 0.93 g/cm^3.
ICE_NUMBER_DENSITY = 0.93 * 0.602214 / 18.015


@lru_cache(maxsize=128)
def _coefficients(element: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    symbol = element.strip().capitalize()
    found = gemmi.Element("H" if symbol == "D" else symbol)
    if found.atomic_number == 0 or found.c4322 is None:
        raise ValueError(f"no electron form factor for element {element!r}")
    return tuple(found.c4322.a), tuple(found.c4322.b)


def form_factor(element: str, k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Electron form factor in A of a neutral atom at frequencies k (1/A): sum a exp(-b k^2 / 4).

    Raises ValueError for an element that the table does not hold.
    """
    a, b = _coefficients(element)
    squared = np.square(k)
    return np.sum([ai * np.exp(-0.25 * bi * squared) for ai, bi in zip(a, b, strict=True)], axis=0)


def displaced_solvent(element: str, k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Form factor (V A^3) of the ice that an atom displaces: a Gaussian with the atom's volume.

    Fraser, MacRae and Suzuki (1978): v exp(-pi v^(2/3) k^2), here times the mean inner potential of ice. Metals
    and ions, which are not in that table, displace a van der Waals sphere.
    """
    symbol = element.strip().capitalize()
    volume = DISPLACED_VOLUMES.get(symbol)
    if volume is None:
        volume = 4.0 / 3.0 * math.pi * gemmi.Element(symbol).vdw_r ** 3
    return ICE_POTENTIAL * volume * np.exp(-math.pi * volume ** (2.0 / 3.0) * np.square(k))


def implicit_hydrogens(element: str, k: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Form factors (V A^3) of the hydrogens that hang on a heavy atom, and of the ice they displace.

    Averaged over all directions of the bond of length d: sin(2 pi k d) / (2 pi k d) (Debye).
    """
    count, bond = IMPLICIT_HYDROGENS.get(element.strip().capitalize(), (0.0, 1.0))
    shell = np.sinc(2.0 * k * bond)
    return (
        count * POTENTIAL_PER_FORM_FACTOR * form_factor("H", k) * shell,
        count * displaced_solvent("H", k) * shell,
    )


def atom_potential(
    element: str, k: NDArray[np.float64], *, hydrogens: bool = False, solvent: bool = True
) -> NDArray[np.float64]:
    """Fourier transform (V A^3) of the potential that an atom adds to ice (or to vacuum: solvent False).

    hydrogens: count the mean hydrogens of the atom in, for models that lack them.
    """
    total = POTENTIAL_PER_FORM_FACTOR * form_factor(element, k)
    ice = displaced_solvent(element, k)
    if hydrogens:
        hydrogen, hydrogen_ice = implicit_hydrogens(element, k)
        total, ice = total + hydrogen, ice + hydrogen_ice
    return total - ice if solvent else total


def interaction_constant(voltage: float) -> float:
    """Phase (rad) per projected potential (V A) of electrons of `voltage` kV: 2 pi m e lambda / h^2, relativistic.

    Kirkland (2010) Advanced Computing in Electron Microscopy, eq. 5.6.
    """
    ratio = (_ELECTRON_REST_KEV + voltage) / (2.0 * _ELECTRON_REST_KEV + voltage)
    return 2.0 * math.pi / (electron_wavelength(voltage) * voltage * 1e3) * ratio


def water_potential(k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Form factor (V A^3) of a water molecule averaged over its orientations (O-H 0.957 A)."""
    hydrogen = 2.0 * form_factor("H", k) * np.sinc(2.0 * k * 0.957)
    return POTENTIAL_PER_FORM_FACTOR * (form_factor("O", k) + hydrogen)
