"""Spline interpolation on the CPU: one numba pass over the output, strips of rows in Python threads."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads


@njit(cache=True, fastmath=True, nogil=True)
def _warp(
    image: NDArray[np.float32], field: NDArray[np.float64], out: NDArray[np.float32], first: int, last: int
) -> None:
    height, width = image.shape
    sixth = np.float32(1.0 / 6.0)
    for y in range(first, last):
        v = y / height - 0.5
        ax = field[0, 0] + field[0, 3] * v + field[0, 4] * v * v
        bx = field[0, 1] + field[0, 5] * v
        ay = y + field[1, 0] + field[1, 3] * v + field[1, 4] * v * v
        by = field[1, 1] + field[1, 5] * v
        for x in range(width):
            u = x / width - 0.5
            px = x + ax + bx * u + field[0, 2] * u * u
            py = ay + by * u + field[1, 2] * u * u
            ix = int(np.floor(px))
            iy = int(np.floor(py))
            t = np.float32(px - ix)
            s = np.float32(py - iy)
            one = np.float32(1.0)
            t1 = one - t
            s1 = one - s
            w0 = t1 * t1 * t1 * sixth
            w3 = t * t * t * sixth
            w1 = np.float32(2.0 / 3.0) - t * t * (one - np.float32(0.5) * t)
            w2 = one - w0 - w1 - w3
            v0 = s1 * s1 * s1 * sixth
            v3 = s * s * s * sixth
            v1 = np.float32(2.0 / 3.0) - s * s * (one - np.float32(0.5) * s)
            v2 = one - v0 - v1 - v3
            if 1 <= ix < width - 2 and 1 <= iy < height - 2:
                r0 = w0 * image[iy - 1, ix - 1] + w1 * image[iy - 1, ix]
                r0 += w2 * image[iy - 1, ix + 1] + w3 * image[iy - 1, ix + 2]
                r1 = w0 * image[iy, ix - 1] + w1 * image[iy, ix]
                r1 += w2 * image[iy, ix + 1] + w3 * image[iy, ix + 2]
                r2 = w0 * image[iy + 1, ix - 1] + w1 * image[iy + 1, ix]
                r2 += w2 * image[iy + 1, ix + 1] + w3 * image[iy + 1, ix + 2]
                r3 = w0 * image[iy + 2, ix - 1] + w1 * image[iy + 2, ix]
                r3 += w2 * image[iy + 2, ix + 1] + w3 * image[iy + 2, ix + 2]
                out[y, x] = v0 * r0 + v1 * r1 + v2 * r2 + v3 * r3
            else:
                total = np.float32(0.0)
                for j in range(4):
                    row = (iy + j - 1) % height
                    wy = v0 if j == 0 else (v1 if j == 1 else (v2 if j == 2 else v3))
                    for i in range(4):
                        column = (ix + i - 1) % width
                        wx = w0 if i == 0 else (w1 if i == 1 else (w2 if i == 2 else w3))
                        total += wy * wx * image[row, column]
                out[y, x] = total


def warp(splines: Float[Tensor, "height width"], field: Float[Tensor, "2 6"]) -> Float[Tensor, "height width"]:
    """See `vitreous.kernels.warp.warp`; float32."""
    image = splines.to(torch.float32).contiguous().numpy()
    out = np.empty_like(image)
    polynomial = field.to(torch.float64).contiguous().numpy()

    def part(rows: slice) -> None:
        _warp(image, polynomial, out, rows.start, rows.stop)

    in_threads(part, len(out))
    return torch.from_numpy(out)
