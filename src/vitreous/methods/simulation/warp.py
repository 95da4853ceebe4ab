"""Read an image at moved positions by quintic B-spline interpolation."""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import frequency_grid
from vitreous.methods.simulation.splat import spline_weights


def spline_prefilter(shape: tuple[int, int]) -> Tensor:
    """Divide a transform by this to get the transform of its B-spline coefficients: sums of the spline at integers.

    Unser, Aldroubi and Eden (1993) IEEE Trans. Signal Process. 41, 821. float32, rfft grid.
    """
    total = torch.ones(1, dtype=torch.float64)
    for k in frequency_grid(shape):
        total = total * (66.0 + 52.0 * torch.cos(2 * torch.pi * k) + 2.0 * torch.cos(4 * torch.pi * k)) / 120.0
    return total.to(torch.float32)


@numba.njit(cache=True, inline="always")
def _displacement(c: NDArray[np.float64], u: float, v: float) -> float:
    return c[0] + c[1] * u + c[2] * u * u + c[3] * v + c[4] * v * v + c[5] * u * v


@numba.njit(cache=True, nogil=True)
def warp(
    coefficients: NDArray[np.float32], shape: tuple[int, int], margin: tuple[int, int], model: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The frame (y, x) in which what lay at p lies at p + d(p); coefficients: the canvas's B-spline coefficients.

    The canvas holds the frame with a margin (y, x) of pixels before it, and is periodic. model (2, 6): d = (dx, dy)
    in pixels by the terms 1, x, x^2, y, y^2, xy of x / width - 0.5 and y / height - 0.5.
    """
    height, width = shape
    rows, columns = coefficients.shape
    out = np.empty((height, width), np.float32)
    for i in range(height):
        wx, wy = np.empty(6), np.empty(6)
        for j in range(width):
            x, y = float(j), float(i)
            # p = q - d(p) by fixed point: d changes by far less than a pixel over its own length.
            for _ in range(2):
                u, v = x / width - 0.5, y / height - 0.5
                x, y = j - _displacement(model[0], u, v), i - _displacement(model[1], u, v)
            x0, y0 = np.floor(x), np.floor(y)
            spline_weights(x - x0, wx)
            spline_weights(y - y0, wy)
            ix, iy = int(x0) + margin[1] - 2, int(y0) + margin[0] - 2
            total = 0.0
            inside = ix >= 0 and iy >= 0 and ix + 6 <= columns and iy + 6 <= rows
            for b in range(6):
                line = 0.0
                if inside:  # no modulo: three times as fast
                    for a in range(6):
                        line += wx[a] * coefficients[iy + b, ix + a]
                else:
                    for a in range(6):
                        line += wx[a] * coefficients[(iy + b) % rows, (ix + a) % columns]
                total += wy[b] * line
            out[i, j] = total
    return out
