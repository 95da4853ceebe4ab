"""The adjoint of projection: slices and their weights added into an oversampled Fourier volume (or images)."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.backproject import cpu, cuda, reference
from vitreous.kernels.backproject.accumulator import (
    ImageAccumulator,
    VolumeAccumulator,
    empty_images,
    empty_volume,
)

__all__ = ["ImageAccumulator", "VolumeAccumulator", "backproject", "backproject_2d", "empty_images", "empty_volume"]


def backproject(
    into: VolumeAccumulator,
    slices: Complex[Tensor, "n m"],
    weights: Float[Tensor, "n m"],
    rotations: Float[Tensor, "n 3 3"],
    coordinates: Float[Tensor, "m 2"],
) -> None:
    """Add n slices and their weights to an accumulator, each value shared by the eight grid points around it.

    The exact adjoint of `kernels.project.project` with the same rotations and coordinates. The form is chosen by the
    accumulator: float64 reference for complex128, else numba (one thread) on the CPU, atomic additions on CUDA.
    """
    if into.data.dtype == torch.complex128:
        reference.backproject(into, slices, weights, rotations, coordinates)
    elif into.data.is_cuda:
        cuda.backproject(into, slices, weights, rotations, coordinates)
    else:
        cpu.backproject(into, slices, weights, rotations, coordinates)


def backproject_2d(
    into: ImageAccumulator,
    slices: Complex[Tensor, "k n m"],
    weights: Float[Tensor, "k n m"],
    angles: Float[Tensor, "n"],
    coordinates: Float[Tensor, "m 2"],
) -> None:
    """Add, for each of k images, n turned images to an accumulator: the adjoint of `kernels.project.project_2d`."""
    if into.data.dtype == torch.complex128:
        reference.backproject_2d(into, slices, weights, angles, coordinates)
    elif into.data.is_cuda:
        cuda.backproject_2d(into, slices, weights, angles, coordinates)
    else:
        cpu.backproject_2d(into, slices, weights, angles, coordinates)
