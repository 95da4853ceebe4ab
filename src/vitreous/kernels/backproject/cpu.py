"""Insertion of slices on the CPU: numba, one thread a volume (scattering needs no locks then)."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.backproject.accumulator import ImageAccumulator, VolumeAccumulator
from vitreous.kernels.project.cpu import as_float32, as_pairs
from vitreous.kernels.project.prepared import in_plane_rotations, inside_radius


@numba.njit(fastmath=True, cache=True, boundscheck=False, nogil=True)
def _insert(data, weight, centre, slices, weights, rotations, coordinates, inside):  # type: ignore[no-untyped-def]
    """data (z, y, x, 2), weight (z, y, x), slices (n, m, 2), weights (n, m), rotations (n, 2, 3) times padding."""
    shift = np.float32(centre)
    one = np.float32(1.0)
    for i in range(slices.shape[0]):
        xx, xy, xz = rotations[i, 0, 0], rotations[i, 0, 1], rotations[i, 0, 2]
        yx, yy, yz = rotations[i, 1, 0], rotations[i, 1, 1], rotations[i, 1, 2]
        for j in range(coordinates.shape[0]):
            w = weights[i, j]
            re, im = slices[i, j, 0], slices[i, j, 1]
            if not inside[j] or (w == 0 and re == 0 and im == 0):
                continue
            ky, kx = coordinates[j, 0], coordinates[j, 1]
            px = xx * kx + yx * ky
            sign = np.float32(-1.0) if px < 0 else one
            px = px * sign
            py = (xy * kx + yy * ky) * sign + shift
            pz = (xz * kx + yz * ky) * sign + shift
            im = im * sign
            x0, y0, z0 = np.int32(px), np.int32(py), np.int32(pz)
            fx, fy, fz = px - np.float32(x0), py - np.float32(y0), pz - np.float32(z0)
            for dz in range(2):
                wz = fz if dz else one - fz
                for dy in range(2):
                    wy = wz * (fy if dy else one - fy)
                    z, y = z0 + dz, y0 + dy
                    low, high = wy * (one - fx), wy * fx
                    data[z, y, x0, 0] += low * re
                    data[z, y, x0, 1] += low * im
                    data[z, y, x0 + 1, 0] += high * re
                    data[z, y, x0 + 1, 1] += high * im
                    weight[z, y, x0] += low * w
                    weight[z, y, x0 + 1] += high * w


@numba.njit(parallel=True, fastmath=True, cache=True, boundscheck=False)
def _insert_2d(data, weight, centre, slices, weights, rotations, coordinates, inside):  # type: ignore[no-untyped-def]
    """As _insert for images: data (k, y, x, 2), slices (k, n, m, 2), rotations (n, 2, 2) times padding."""
    shift = np.float32(centre)
    one = np.float32(1.0)
    for k in numba.prange(slices.shape[0]):
        for i in range(slices.shape[1]):
            for j in range(coordinates.shape[0]):
                w = weights[k, i, j]
                re, im = slices[k, i, j, 0], slices[k, i, j, 1]
                if not inside[j] or (w == 0 and re == 0 and im == 0):
                    continue
                ky, kx = coordinates[j, 0], coordinates[j, 1]
                px = rotations[i, 0, 0] * kx + rotations[i, 1, 0] * ky
                sign = np.float32(-1.0) if px < 0 else one
                px = px * sign
                py = (rotations[i, 0, 1] * kx + rotations[i, 1, 1] * ky) * sign + shift
                im = im * sign
                x0, y0 = np.int32(px), np.int32(py)
                fx, fy = px - np.float32(x0), py - np.float32(y0)
                for dy in range(2):
                    wy = fy if dy else one - fy
                    y = y0 + dy
                    low, high = wy * (one - fx), wy * fx
                    data[k, y, x0, 0] += low * re
                    data[k, y, x0, 1] += low * im
                    data[k, y, x0 + 1, 0] += high * re
                    data[k, y, x0 + 1, 1] += high * im
                    weight[k, y, x0] += low * w
                    weight[k, y, x0 + 1] += high * w


def backproject(
    into: VolumeAccumulator,
    slices: Complex[Tensor, "n m"],
    weights: Float[Tensor, "n m"],
    rotations: Float[Tensor, "n 3 3"],
    coordinates: Float[Tensor, "m 2"],
) -> None:
    """See kernels.backproject.backproject."""
    inside = inside_radius(into, coordinates).numpy()
    _insert(
        torch.view_as_real(into.data).numpy(),
        into.weight.numpy(),
        into.centre,
        as_pairs(slices),
        as_float32(weights),
        as_float32(rotations[:, :2] * into.padding),
        as_float32(coordinates),
        inside,
    )


def backproject_2d(
    into: ImageAccumulator,
    slices: Complex[Tensor, "k n m"],
    weights: Float[Tensor, "k n m"],
    angles: Float[Tensor, "n"],
    coordinates: Float[Tensor, "m 2"],
) -> None:
    """See kernels.backproject.backproject_2d."""
    inside = inside_radius(into, coordinates).numpy()
    _insert_2d(
        torch.view_as_real(into.data).numpy(),
        into.weight.numpy(),
        into.centre,
        as_pairs(slices),
        as_float32(weights),
        as_float32(in_plane_rotations(angles.to(torch.float64)) * into.padding),
        as_float32(coordinates),
        inside,
    )
