"""A Fourier volume read at rotated grid points: numba, planes shared out among threads."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.backproject import VolumeAccumulator


@numba.njit(parallel=True, fastmath=True, cache=True, boundscheck=False)
def _turned(data, weight, centre, limit2, rotation, out_data, out_weight):  # type: ignore[no-untyped-def]
    """data (z, y, x, 2), weight (z, y, x) at rotation @ (x, y, z)."""
    one = np.float32(1.0)
    for iz in numba.prange(data.shape[0]):
        z = np.float32(iz - centre)
        for iy in range(data.shape[1]):
            y = np.float32(iy - centre)
            for ix in range(data.shape[2]):
                x = np.float32(ix)
                if x * x + y * y + z * z > limit2:
                    continue
                px = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
                sign = np.float32(-1.0) if px < 0 else one
                px = px * sign
                py = (rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z) * sign + np.float32(centre)
                pz = (rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z) * sign + np.float32(centre)
                x0, y0, z0 = np.int32(px), np.int32(py), np.int32(pz)
                fx, fy, fz = px - np.float32(x0), py - np.float32(y0), pz - np.float32(z0)
                re, im, total = np.float32(0.0), np.float32(0.0), np.float32(0.0)
                for dz in range(2):
                    wz = fz if dz else one - fz
                    for dy in range(2):
                        wy = wz * (fy if dy else one - fy)
                        for dx in range(2):
                            w = wy * (fx if dx else one - fx)
                            re += w * data[z0 + dz, y0 + dy, x0 + dx, 0]
                            im += w * data[z0 + dz, y0 + dy, x0 + dx, 1]
                            total += w * weight[z0 + dz, y0 + dy, x0 + dx]
                out_data[iz, iy, ix, 0] = re
                out_data[iz, iy, ix, 1] = im * sign
                out_weight[iz, iy, ix] = total


def turned(accumulator: VolumeAccumulator, rotation: Float[Tensor, "3 3"]) -> tuple[Tensor, Tensor]:
    """data and weight at S k for every grid point k within the accumulator's radius; 0 beyond."""
    data, weight = torch.zeros_like(accumulator.data), torch.zeros_like(accumulator.weight)
    limit = accumulator.padding * accumulator.max_radius
    _turned(
        torch.view_as_real(accumulator.data.contiguous()).numpy(),
        accumulator.weight.contiguous().numpy(),
        accumulator.centre,
        (limit + 1e-4) ** 2,
        rotation.to(torch.float32).numpy(),
        torch.view_as_real(data).numpy(),
        weight.numpy(),
    )
    return data, weight


@numba.njit(parallel=True, fastmath=True, cache=True, boundscheck=False)
def _permuted_sum(data, weight, centre, limit2, rotations, out_data, out_weight):  # type: ignore[no-untyped-def]
    """Sums of data (z, y, x, 2) and weight over integer rotations (r, 3, 3) of the grid point (x, y, z)."""
    for iz in numba.prange(data.shape[0]):
        z = iz - centre
        for iy in range(data.shape[1]):
            y = iy - centre
            for ix in range(data.shape[2]):
                if ix * ix + y * y + z * z > limit2:
                    continue
                re, im, total = np.float32(0.0), np.float32(0.0), np.float32(0.0)
                for r in range(rotations.shape[0]):
                    px = rotations[r, 0, 0] * ix + rotations[r, 0, 1] * y + rotations[r, 0, 2] * z
                    sign = -1 if px < 0 else 1
                    px = px * sign
                    py = (rotations[r, 1, 0] * ix + rotations[r, 1, 1] * y + rotations[r, 1, 2] * z) * sign + centre
                    pz = (rotations[r, 2, 0] * ix + rotations[r, 2, 1] * y + rotations[r, 2, 2] * z) * sign + centre
                    re += data[pz, py, px, 0]
                    im += data[pz, py, px, 1] * np.float32(sign)
                    total += weight[pz, py, px]
                out_data[iz, iy, ix, 0] = re
                out_data[iz, iy, ix, 1] = im
                out_weight[iz, iy, ix] = total


def permuted_sum(accumulator: VolumeAccumulator, rotations: Float[Tensor, "r 3 3"]) -> tuple[Tensor, Tensor]:
    """data and weight summed over rotations that permute axes with signs; 0 two points beyond the radius."""
    data, weight = torch.zeros_like(accumulator.data), torch.zeros_like(accumulator.weight)
    limit = accumulator.padding * accumulator.max_radius + 2  # what trilinear reading may touch
    _permuted_sum(
        torch.view_as_real(accumulator.data.contiguous()).numpy(),
        accumulator.weight.contiguous().numpy(),
        accumulator.centre,
        limit**2,
        rotations.round().to(torch.int64).numpy(),
        torch.view_as_real(data).numpy(),
        weight.numpy(),
    )
    return data, weight
