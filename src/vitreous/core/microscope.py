"""What the microscope is: accelerating voltage, spherical aberration, amplitude contrast (no torch needed)."""

from __future__ import annotations

import math
from dataclasses import dataclass


def electron_wavelength(voltage: float) -> float:
    """Relativistic wavelength in A of electrons accelerated through voltage kV."""
    volts = voltage * 1e3
    return 12.2643247 / math.sqrt(volts * (1.0 + 0.978466e-6 * volts))


@dataclass(frozen=True)
class Microscope:
    """What the lens is: voltage (kV), cs (mm), amplitude_contrast (fraction), even_zernike (core/aberrations.py)."""

    voltage: float
    cs: float
    amplitude_contrast: float
    even_zernike: tuple[float, ...] = ()

    @property
    def wavelength(self) -> float:
        """Electron wavelength in A."""
        return electron_wavelength(self.voltage)
