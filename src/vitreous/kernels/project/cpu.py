"""Central slices on the CPU: numba, one orientation after another, a volume that fits the cache."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.project.prepared import ProjectableImages, ProjectableVolume, in_plane_rotations, inside_radius


@numba.njit(parallel=True, fastmath=True, cache=True, boundscheck=False)
def _slices(volume, centre, rotations, coordinates, inside, out):  # type: ignore[no-untyped-def]
    """volume (z, y, x, 2), rotations (n, 2, 3) scaled by the padding, coordinates (m, 2): fill out (n, m, 2)."""
    ny, nx = volume.shape[1], volume.shape[2]
    flat = volume.reshape(-1)
    row, plane = np.uint64(2 * nx), np.uint64(2 * nx * ny)
    shift = np.float32(centre)
    one = np.float32(1.0)
    for i in numba.prange(rotations.shape[0]):
        xx, xy, xz = rotations[i, 0, 0], rotations[i, 0, 1], rotations[i, 0, 2]
        yx, yy, yz = rotations[i, 1, 0], rotations[i, 1, 1], rotations[i, 1, 2]
        for j in range(coordinates.shape[0]):
            if not inside[j]:
                out[i, j, 0] = 0.0
                out[i, j, 1] = 0.0
                continue
            ky, kx = coordinates[j, 0], coordinates[j, 1]
            px = xx * kx + yx * ky
            sign = np.float32(-1.0) if px < 0 else one
            px = px * sign
            py = (xy * kx + yy * ky) * sign + shift
            pz = (xz * kx + yz * ky) * sign + shift
            x0, y0, z0 = np.int32(px), np.int32(py), np.int32(pz)
            fx, fy, fz = px - np.float32(x0), py - np.float32(y0), pz - np.float32(z0)
            a = np.uint64(z0) * plane + np.uint64(y0) * row + np.uint64(2) * np.uint64(x0)
            b = a + row
            c = a + plane
            d = c + row
            gx, gy = one - fx, one - fy
            for part in range(2):
                p = np.uint64(part)
                q = np.uint64(part + 2)
                low = gy * (gx * flat[a + p] + fx * flat[a + q]) + fy * (gx * flat[b + p] + fx * flat[b + q])
                high = gy * (gx * flat[c + p] + fx * flat[c + q]) + fy * (gx * flat[d + p] + fx * flat[d + q])
                value = low + fz * (high - low)
                out[i, j, part] = value if part == 0 else value * sign


@numba.njit(parallel=True, fastmath=True, cache=True, boundscheck=False)
def _turned(images, centre, rotations, coordinates, inside, out):  # type: ignore[no-untyped-def]
    """images (k, y, x, 2), rotations (n, 2, 2) scaled by the padding: fill out (k, n, m, 2)."""
    one = np.float32(1.0)
    shift = np.float32(centre)
    n = rotations.shape[0]
    for task in numba.prange(images.shape[0] * n):
        k, i = task // n, task % n
        image = images[k]
        for j in range(coordinates.shape[0]):
            if not inside[j]:
                out[k, i, j, 0] = 0.0
                out[k, i, j, 1] = 0.0
                continue
            ky, kx = coordinates[j, 0], coordinates[j, 1]
            px = rotations[i, 0, 0] * kx + rotations[i, 1, 0] * ky
            sign = np.float32(-1.0) if px < 0 else one
            px = px * sign
            py = (rotations[i, 0, 1] * kx + rotations[i, 1, 1] * ky) * sign + shift
            x0, y0 = np.int32(px), np.int32(py)
            fx, fy = px - np.float32(x0), py - np.float32(y0)
            for part in range(2):
                low = image[y0, x0, part] * (one - fx) + image[y0, x0 + 1, part] * fx
                high = image[y0 + 1, x0, part] * (one - fx) + image[y0 + 1, x0 + 1, part] * fx
                value = low + fy * (high - low)
                out[k, i, j, part] = value if part == 0 else value * sign


def as_pairs(values: Tensor) -> np.ndarray:
    """A complex tensor as a float32 array with a last axis (real, imaginary); no copy of a complex64 tensor."""
    return torch.view_as_real(values.to(torch.complex64).contiguous()).numpy()


def as_float32(values: Tensor) -> np.ndarray:
    """A contiguous float32 array."""
    return np.ascontiguousarray(values.to(torch.float32).numpy())


def project(
    volume: ProjectableVolume,
    rotations: Float[Tensor, "n 3 3"],
    coordinates: Float[Tensor, "m 2"],
    out: Complex[Tensor, "n m"],
) -> Complex[Tensor, "n m"]:
    """See kernels.project.project; complex64."""
    scaled = as_float32(rotations[:, :2] * volume.padding)
    inside = inside_radius(volume, coordinates).numpy()
    places = torch.view_as_real(out).numpy()
    _slices(as_pairs(volume.data), volume.centre, scaled, as_float32(coordinates), inside, places)
    return out


def project_2d(
    images: ProjectableImages, angles: Float[Tensor, "n"], coordinates: Float[Tensor, "m 2"]
) -> Complex[Tensor, "k n m"]:
    """See kernels.project.project_2d; complex64."""
    out = np.empty((len(images.data), len(angles), len(coordinates), 2), np.float32)
    scaled = as_float32(in_plane_rotations(angles.to(torch.float64)) * images.padding)
    inside = inside_radius(images, coordinates).numpy()
    _turned(as_pairs(images.data), images.centre, scaled, as_float32(coordinates), inside, out)
    return torch.view_as_complex(torch.from_numpy(out))
