"""Central slices of volumes and in-plane rotations of images, at chosen Fourier coefficients.

The projection-slice theorem: the transform of a projection is the central slice of the volume's transform. The slice
is read by linear interpolation on a padded (oversampled) grid, after dividing the density by what the interpolation
would multiply it with (sinc^2 along each axis).
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.project import cpu, cuda, reference
from vitreous.kernels.project.prepared import (
    ProjectableImages,
    ProjectableVolume,
    interpolation_envelope,
    prepare_images,
    prepare_volume,
)

__all__ = [
    "ProjectableImages",
    "ProjectableVolume",
    "interpolation_envelope",
    "prepare_images",
    "prepare_volume",
    "project",
    "project_2d",
]


def project(
    volume: ProjectableVolume,
    rotations: Float[Tensor, "n 3 3"],
    coordinates: Float[Tensor, "m 2"],
    *,
    out: Complex[Tensor, "n m"] | None = None,
) -> Complex[Tensor, "n m"]:
    """Slices of a volume at n poses: the coefficients of the projections' transforms at m coordinates.

    rotations: take volume axes (x, y, z) to image axes; the slice's point (x, y, 0) reads A^T (x, y, 0).
    coordinates: (ky, kx) in Fourier pixels of the unpadded box; beyond the prepared radius the result is 0.
    Values are those of `core.fourier.to_fourier` of the projection (a sum over voxels along the line of sight).
    out: where to write them (complex64, contiguous, on the volume's device).
    The form is chosen by the volume: float64 reference for complex128, else numba on the CPU, gathers on CUDA.
    """
    if volume.data.dtype == torch.complex128:
        exact = reference.project(volume, rotations, coordinates)
        return exact if out is None else out.copy_(exact)
    if out is None:
        shape = len(rotations), len(coordinates)
        out = torch.empty(shape, dtype=torch.complex64, device=volume.data.device)
    return (cuda if volume.data.is_cuda else cpu).project(volume, rotations, coordinates, out)


def project_2d(
    images: ProjectableImages, angles: Float[Tensor, "n"], coordinates: Float[Tensor, "m 2"]
) -> Complex[Tensor, "k n m"]:
    """k images turned in their plane by n angles (psi in degrees, as poses with rot = tilt = 0), at m coordinates.

    Form, coordinates and values as in `project`.
    """
    if images.data.dtype == torch.complex128:
        return reference.project_2d(images, angles, coordinates)
    return (cuda if images.data.is_cuda else cpu).project_2d(images, angles, coordinates)
