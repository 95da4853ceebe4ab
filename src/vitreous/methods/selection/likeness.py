"""How much a class average looks like one of the best, whatever its rotation in the plane and its hand.

A view with few particles ends at a lower resolution than the others and is a good class all the same; seen at that
resolution it still looks like them. Junk does not.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage

from vitreous.core.fourier import lowpass, to_fourier, to_real

_ANGLES = 96


def likeness_to_leaders(
    averages: Float[np.ndarray, "k box box"],
    pixel_size: float,
    diameter: float,
    resolution: Float[np.ndarray, "k"],
    leaders: Int[np.ndarray, "l"],
) -> Float[np.ndarray, "k"]:
    """Largest correlation of each average with another one among the leaders, over rotations and mirror images.

    Both are low-passed to the resolution (A) of the average in question and compared within the mask of diameter
    (A). Zero where an average has no resolution below its diameter or there is no other leader.
    """
    found = np.zeros(len(averages))
    for limit in np.unique(resolution[resolution < diameter]):
        rows = np.flatnonzero(resolution == limit)
        own = _polar(_smooth(averages[rows], pixel_size, float(limit)), 0.5 * diameter / pixel_size)
        best = _polar(_smooth(averages[leaders], pixel_size, float(limit)), 0.5 * diameter / pixel_size)
        own_ft, best_ft = np.fft.fft(own, axis=2), np.fft.fft(best, axis=2)
        mirrored_ft = np.fft.fft(best[:, :, ::-1], axis=2)
        for row, transform in zip(rows, own_ft, strict=True):
            others = leaders != row
            if others.any():
                pairs = np.concatenate([best_ft[others], mirrored_ft[others]])
                found[row] = np.fft.ifft((transform * pairs.conj()).sum(axis=1), axis=1).real.max()
    return found


def _smooth(images: Float[np.ndarray, "n box box"], pixel_size: float, resolution: float) -> np.ndarray:
    shape = (images.shape[1], images.shape[2])
    transfer = lowpass(shape, pixel_size, max(resolution, 2.0 * pixel_size))
    return to_real(to_fourier(torch.from_numpy(images.astype(np.float64))) * transfer, shape).numpy()


def _polar(images: Float[np.ndarray, "n box box"], radius: float) -> Float[np.ndarray, "n radii angles"]:
    """Images on rings, weighted by area, of zero mean and unit norm: products are correlations within the circle."""
    middle = images.shape[-1] // 2
    radii = np.arange(1, max(2, int(min(radius, middle - 1))))[:, None]
    angles = np.arange(_ANGLES) * (2.0 * np.pi / _ANGLES)
    places = [middle + radii * np.sin(angles), middle + radii * np.cos(angles)]
    rings = np.stack([ndimage.map_coordinates(image, places, order=1, mode="nearest") for image in images])
    area = np.broadcast_to(radii / (radii.sum() * _ANGLES), rings.shape[1:])
    rings = (rings - (rings * area).sum(axis=(1, 2), keepdims=True)) * np.sqrt(area)
    norm = np.sqrt((rings**2).sum(axis=(1, 2), keepdims=True))
    return rings / np.maximum(norm, 1e-30)
