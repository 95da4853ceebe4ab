"""Amorphous ice: the granular noise that gives Thon rings, and how it flows under the beam.

The projected potential of a layer of N water molecules per area has the power spectrum N |F(k)|^2 S(k), with the
molecule's form factor F and the structure factor S of amorphous ice: small at low k (nearly incompressible), a
first peak near 1/3.7 A. Molecules move by 1.1 A^2 mean square for each e/A^2 at 300 kV, so ice decorrelates from
frame to frame: McMullan, Vinothkumar and Henderson (2015) Ultramicroscopy 158, 26.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitreous.core.fourier import radius_grid
from vitreous.core.scattering import ICE_NUMBER_DENSITY, water_potential

_MEAN_SQUARE_MOTION = 1.1  # A^2 per e/A^2, in three dimensions
_PEAK, _PEAK_WIDTH, _PEAK_HEIGHT = 1.0 / 3.7, 0.03, 0.9  # 1/A, 1/A, above 1
_LOW_K, _RISE = 0.08, 0.2  # S(0); frequency (1/A) at which S has risen to 1 - 1/e


@dataclass(frozen=True)
class Ice:
    """A layer of ice: thickness in A (0: none); flow: mean square motion of its molecules, A^2 per e/A^2."""

    thickness: float = 300.0
    flow: float = _MEAN_SQUARE_MOTION


def structure_factor(k: Tensor) -> Tensor:
    """S(k) of amorphous ice at frequencies k (1/A): a smooth rise and the first diffraction peak.

    A model of the measured curve's shape, not a fit: Dubochet et al. (1988) Q. Rev. Biophys. 21, 129, figure 3.
    """
    rise = 1.0 - (1.0 - _LOW_K) * torch.exp(-((k / _RISE) ** 4))
    return rise + _PEAK_HEIGHT * torch.exp(-0.5 * ((k - _PEAK) / _PEAK_WIDTH) ** 2)


def power_spectrum(k: Tensor, ice: Ice) -> Tensor:
    """Power spectral density (V^2 A^4) of the projected potential of the layer at frequencies k (1/A)."""
    molecule = torch.from_numpy(water_potential(k.to(torch.float64).numpy()))
    return ICE_NUMBER_DENSITY * ice.thickness * molecule.square() * structure_factor(k.to(torch.float64))


def decorrelation_rate(k: Tensor, ice: Ice) -> Tensor:
    """Rate (per e/A^2) at which a Fourier component of the ice forgets itself: 2 pi^2 k^2 <x^2>."""
    return 2.0 * math.pi**2 * k.square() * ice.flow / 3.0


def exposure_average(rate_times_exposure: Tensor) -> Tensor:
    """Power left in the mean over an exposure of a component that decays at a rate: 2 (a - 1 + exp(-a)) / a^2."""
    a = rate_times_exposure.clamp(min=1e-3)  # below, the series 1 - a/3 is 1 to the last float32 digit that matters
    return 2.0 * (a - 1.0 + torch.exp(-a)) / a.square()


class IceNoise:
    """The transform of the ice's projected potential (V A), exposure by exposure: an Ornstein-Uhlenbeck process.

    One instance is one area of ice; each call of `expose` is the next exposure of the same area.
    """

    def __init__(self, shape: tuple[int, int], pixel_size: float, ice: Ice, rng: np.random.Generator) -> None:
        self._shape = shape
        self._rng = rng
        k = radius_grid(shape, pixel_size)
        # White noise of unit variance a pixel has the spectral density pixel_size^2 and rfft power ny nx.
        self._amplitude = (power_spectrum(k, ice).sqrt() / pixel_size).to(torch.float32)
        self._rate = decorrelation_rate(k, ice)
        self._state: Tensor | None = None
        self._last_exposure = 0.0
        self._frame: tuple[float, float] | None = None  # the (last, this) exposure that the multipliers below are for
        self._kept = self._fresh = self._within = self._amplitude

    def _white(self) -> Tensor:
        noise = self._rng.standard_normal(self._shape, dtype=np.float32)
        return torch.fft.rfft2(torch.from_numpy(noise))

    def expose(self, exposure: float) -> Tensor:
        """Mean potential over the next `exposure` e/A^2, in unnormalised rfft layout, complex64."""
        if self._state is None:
            self._prepare(exposure, exposure)
            self._state = self._white()
        else:
            self._prepare(self._last_exposure, exposure)
            self._state = self._state * self._kept + self._white() * self._fresh
        self._last_exposure = exposure
        return self._state * self._within

    def _prepare(self, last: float, exposure: float) -> None:
        """Multipliers from the middle of one exposure to the middle of the next; frames are mostly alike."""
        if self._frame == (last, exposure):
            return
        kept = torch.exp(-self._rate * 0.5 * (last + exposure))
        self._kept = kept.to(torch.float32)
        self._fresh = (1.0 - kept.square()).clamp(min=0.0).sqrt().to(torch.float32)
        self._within = self._amplitude * exposure_average(self._rate * exposure).sqrt().to(torch.float32)
        self._frame = (last, exposure)
