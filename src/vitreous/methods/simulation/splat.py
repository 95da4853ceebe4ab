"""Scatter atoms onto a grid with a quintic B-spline, whose transform is known and can be divided out.

Schoenberg's B-spline of degree five touches six grid points an axis and its transform is sinc^6: on a grid twice
as fine as the band that is kept, what folds back is below (1/3)^6 = 0.14% at the band's very edge.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import frequency_grid

SUPPORT = 6  # grid points touched along each axis


@numba.njit(cache=True, inline="always")
def spline_weights(t: float, weights: NDArray[np.float64]) -> None:
    """Quintic B-spline weights of grid points floor - 2 .. floor + 3 for a point at floor + t, 0 <= t < 1."""
    u = 1.0 - t
    t2, u2 = t * t, u * u
    weights[0] = u2 * u2 * u / 120.0
    weights[1] = (1.0 + u * (5.0 + u * (10.0 + u * (10.0 + u * (5.0 - 5.0 * u))))) / 120.0
    weights[3] = (26.0 + t * (50.0 + t * (20.0 + t * (-20.0 + t * (-20.0 + 10.0 * t))))) / 120.0
    weights[4] = (1.0 + t * (5.0 + t * (10.0 + t * (10.0 + t * (5.0 - 5.0 * t))))) / 120.0
    weights[5] = t2 * t2 * t / 120.0
    weights[2] = 1.0 - (weights[0] + weights[1] + weights[3] + weights[4] + weights[5])


@numba.njit(cache=True)
def splat_volume(points: NDArray[np.float64], weights: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Add weights (n,) at points (n, 3) (x, y, z in grid units from the centre size//2) to a (z, y, x) cube.

    Periodic: what leaves on one side comes in on the other.
    """
    grid = np.zeros((size, size, size), np.float32)
    wx, wy, wz = np.empty(6), np.empty(6), np.empty(6)
    centre = size // 2
    for atom in range(points.shape[0]):
        x0, y0, z0 = np.floor(points[atom, 0]), np.floor(points[atom, 1]), np.floor(points[atom, 2])
        spline_weights(points[atom, 0] - x0, wx)
        spline_weights(points[atom, 1] - y0, wy)
        spline_weights(points[atom, 2] - z0, wz)
        ix, iy, iz = int(x0) + centre - 2, int(y0) + centre - 2, int(z0) + centre - 2
        for c in range(6):
            plane = (iz + c) % size
            for b in range(6):
                row = (iy + b) % size
                w = wz[c] * wy[b] * weights[atom]
                for a in range(6):
                    grid[plane, row, (ix + a) % size] += np.float32(w * wx[a])
    return grid


@numba.njit(cache=True, nogil=True)
def splat_projections(
    positions: NDArray[np.float64],
    weights: NDArray[np.float32],
    rotations: NDArray[np.float64],
    offsets: NDArray[np.float64],
    size: int,
) -> NDArray[np.float32]:
    """Rotate atoms, drop z, and add each channel of weights to its image: (m, channels, size, size).

    positions (n, 3): x, y, z in grid units; weights (n, channels); rotations (m, 3, 3): volume axes to image
    axes; offsets (m, 2): x, y in grid units of the particle's centre from the image's centre size//2.
    """
    n_images, n_channels = rotations.shape[0], weights.shape[1]
    images = np.zeros((n_images, n_channels, size, size), np.float32)
    centre = size // 2
    for image in range(n_images):
        r = rotations[image]
        wx, wy = np.empty(6), np.empty(6)
        for atom in range(positions.shape[0]):
            p = positions[atom]
            x = r[0, 0] * p[0] + r[0, 1] * p[1] + r[0, 2] * p[2] + offsets[image, 0]
            y = r[1, 0] * p[0] + r[1, 1] * p[1] + r[1, 2] * p[2] + offsets[image, 1]
            x0, y0 = np.floor(x), np.floor(y)
            spline_weights(x - x0, wx)
            spline_weights(y - y0, wy)
            ix, iy = int(x0) + centre - 2, int(y0) + centre - 2
            inside = ix >= 0 and iy >= 0 and ix + 6 <= size and iy + 6 <= size
            for channel in range(n_channels):
                weight = weights[atom, channel]
                for b in range(6):
                    w = wy[b] * weight
                    if inside:  # no modulo: several times as fast
                        for a in range(6):
                            images[image, channel, iy + b, ix + a] += np.float32(w * wx[a])
                    else:
                        for a in range(6):
                            images[image, channel, (iy + b) % size, (ix + a) % size] += np.float32(w * wx[a])
    return images


def spline_transform(shape: tuple[int, ...], *, degree: int = 5) -> Tensor:
    """Transform of the B-spline kernel on the rfft grid of an array of `shape`: sinc^(degree+1) an axis."""
    total = torch.ones(1, dtype=torch.float64)
    for k in frequency_grid(shape):
        total = total * torch.special.sinc(k) ** (degree + 1)
    return total
