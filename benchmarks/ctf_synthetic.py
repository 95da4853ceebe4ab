"""Synthetic micrographs of known CTF (noise with Thon rings, thick, tilted), and what their noise lets a fit know."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.ctf import Defocus, Microscope, ctf, phase_aberration
from vitreous.core.fourier import frequency_grid, hermitian_weights

Image = NDArray[np.float64]
PIXEL, KRIOS, B_FACTOR = 1.2, Microscope(300.0, 2.7, 0.07), 40.0
TILT_PIXEL, TILT_PATCH = 1.4, 384  # A; px of the pieces that a tilted specimen is imaged in


def defocus(values: list[float]) -> Defocus:
    return Defocus(*(torch.tensor([value], dtype=torch.float64) for value in values))


def power_spectrum(
    size: int, at: Defocus, strength: float, thickness: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Power of background and Thon rings on the rfft grid, and |k|^2. thickness: A, of the sample."""
    ky, kx = frequency_grid((size, size), PIXEL)
    k2 = ky**2 + kx**2
    contrast = ctf((size, size), PIXEL, KRIOS, at, dtype=torch.float64)[0]
    # CTF^2 averaged over the slices of the sample.
    nodes = torch.sinc(KRIOS.wavelength * thickness * k2)
    squared = 0.5 + (contrast**2 - 0.5) * nodes
    return 1.0 + strength * squared * torch.exp(-B_FACTOR * k2) + 5.0 * torch.exp(-60.0 * k2.sqrt()), k2


def bound(size: int, at: Defocus, strength: float, thickness: float = 0.0) -> float:
    """Least standard deviation (A) that any unbiased fit of the mean defocus can have between 30 and 3 A."""
    power, k2 = power_spectrum(size, at, strength, thickness)
    ky, kx = frequency_grid((size, size), PIXEL)
    chi = phase_aberration(k2, torch.atan2(ky.expand_as(k2), kx.expand_as(k2)), KRIOS, at)[0]
    slope = strength * torch.exp(-B_FACTOR * k2) * torch.sin(2.0 * chi) * torch.pi * KRIOS.wavelength * k2
    slope = slope * torch.sinc(KRIOS.wavelength * thickness * k2)
    inside = (k2 > 30.0**-2) & (k2 < 3.0**-2)
    # A periodogram's coefficient is exponential: variance = power^2; each independent one is counted once.
    weight = hermitian_weights(size).expand_as(k2) / 2.0
    return float(((slope / power).square() * weight)[inside].sum() ** -0.5)


def angle_bound(mean_bound: float, spread: float) -> float:
    """Least standard deviation (degrees) of the astigmatism's axis: its parts are known sqrt(2) worse than the mean."""
    return float(np.rad2deg(np.sqrt(2.0) * mean_bound / spread))


def tilted_micrograph(size: int, middle: float, tilt: float, axis: float, rng: np.random.Generator) -> Image:
    """A plane `middle` A out of focus in its middle, more towards axis + 90 degrees; overlapping pieces in turn."""
    patch, pixel = TILT_PATCH, TILT_PIXEL
    k = np.hypot(np.fft.fftfreq(patch, pixel)[:, None], np.fft.rfftfreq(patch, pixel))
    rest = -0.5 * np.pi * KRIOS.cs * 1e7 * KRIOS.wavelength**3 * k**4 + np.arcsin(KRIOS.amplitude_contrast)
    direction = np.deg2rad(axis + 90.0)
    slope = np.tan(np.deg2rad(tilt)) * np.array([np.cos(direction), np.sin(direction)])
    whole = -(-size // patch) * patch + 2 * patch
    specimen = rng.standard_normal((whole, whole))
    image, norm = np.zeros((whole, whole)), np.zeros((whole, whole))
    hump = np.sin(np.pi * (np.arange(patch) + 0.5) / patch) ** 2
    window = np.outer(hump, hump)
    for y in range(0, whole - patch + 1, patch // 4):
        for x in range(0, whole - patch + 1, patch // 4):
            height = (np.array([x, y]) + 0.5 * patch - patch - 0.5 * size) @ slope * pixel
            contrast = np.sin(np.pi * KRIOS.wavelength * (middle + height) * k**2 + rest)
            here = (slice(y, y + patch), slice(x, x + patch))
            envelope = np.exp(-0.5 * B_FACTOR * k**2)  # the square of it is the power's
            image[here] += window * np.fft.irfft2(np.fft.rfft2(specimen[here]) * contrast * envelope)
            norm[here] += window
    inside = (slice(patch, patch + size),) * 2
    seen: Image = (image / np.maximum(norm, 1e-9))[inside] + rng.standard_normal((size, size))
    return seen
