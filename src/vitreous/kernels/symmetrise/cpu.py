"""A Fourier volume read at rotated grid points: numba, planes shared out among threads."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.kernels.threads import in_threads


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


_BLOCK = 16  # points a side of what is done at once: rows that others read as columns stay in the cache


def permuted_sum(accumulator: VolumeAccumulator, rotations: Float[Tensor, "r 3 3"]) -> tuple[Tensor, Tensor]:
    """data and weight summed over rotations that permute axes with signs; 0 two points beyond the radius."""
    data, weight = torch.zeros_like(accumulator.data), torch.zeros_like(accumulator.weight)
    limit = accumulator.padding * accumulator.max_radius + 2  # what trilinear reading may touch
    turns = rotations.round().to(torch.int64).numpy()
    given = torch.view_as_real(accumulator.data.contiguous()).numpy(), accumulator.weight.contiguous().numpy()
    target = torch.view_as_real(data).numpy(), weight.numpy()

    def work(part: slice) -> None:
        _permuted_sum(given, (part.start, part.stop), accumulator.centre, limit, turns, target)

    in_threads(work, len(data))
    return data, weight


@numba.njit(nogil=True, fastmath=True, cache=True, boundscheck=False)
def _permuted_sum(given, planes, centre, limit, rotations, out):  # type: ignore[no-untyped-def]
    """Sums over integer rotations (r, 3, 3) of the grid point (x, y, z), block after block."""
    size, half = out[1].shape[1], out[1].shape[2]
    for z0 in range(planes[0], planes[1], _BLOCK):
        for y0 in range(0, size, _BLOCK):
            for x0 in range(0, half, _BLOCK):
                for iz in range(z0, min(z0 + _BLOCK, planes[1])):
                    for iy in range(y0, min(y0 + _BLOCK, size)):
                        left = limit * limit - (iz - centre) ** 2 - (iy - centre) ** 2
                        end = 0 if left < 0 else min(min(x0 + _BLOCK, half), int(np.sqrt(left)) + 1)
                        for r in range(rotations.shape[0]):
                            _add_turned(given, rotations[r], (iz, iy, x0, end), centre, out)


@numba.njit(nogil=True, fastmath=True, cache=True, boundscheck=False)
def _add_turned(given, rotation, piece, centre, out):  # type: ignore[no-untyped-def]
    """Add to a piece of a row what stands at its turned points: a straight line of steps through the volume.

    Points of x < 0 are read, conjugate, at the opposite one. On the plane x = 0, which is Hermitian, either will do.
    """
    data, weight = given
    iz, iy, first, end = piece
    y, z = iy - centre, iz - centre
    sign = -1 if rotation[0, 0] + rotation[0, 1] * y + rotation[0, 2] * z < 0 else 1
    px = sign * (rotation[0, 1] * y + rotation[0, 2] * z)
    py = sign * (rotation[1, 1] * y + rotation[1, 2] * z) + centre
    pz = sign * (rotation[2, 1] * y + rotation[2, 2] * z) + centre
    dx, dy, dz = sign * rotation[0, 0], sign * rotation[1, 0], sign * rotation[2, 0]
    for x in range(first, end):
        sx, sy, sz = px + x * dx, py + x * dy, pz + x * dz
        out[0][iz, iy, x, 0] += data[sz, sy, sx, 0]
        out[0][iz, iy, x, 1] += sign * data[sz, sy, sx, 1]
        out[1][iz, iy, x] += weight[sz, sy, sx]
