"""What slices are summed into."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.project.prepared import storage_size


@dataclass
class VolumeAccumulator:
    """Sums of Fourier coefficients and of their weights on the oversampled grid of a ProjectableVolume.

    data, weight: [z + centre, y + centre, x], x >= 0 alone: what falls on x < 0 is added, conjugate, at the opposite
    point. The plane x = 0 is not yet Hermitian: each sum stands where its slice put it.
    """

    data: Complex[Tensor, "size size half"]
    weight: Float[Tensor, "size size half"]
    box: int
    padding: int
    max_radius: int

    @property
    def centre(self) -> int:
        """Index of zero frequency along z and y."""
        return int(self.data.shape[1]) // 2

    def add_(self, other: VolumeAccumulator) -> None:
        """Add another accumulator's sums (of another half, thread or rank)."""
        self.data += other.data
        self.weight += other.weight


@dataclass
class ImageAccumulator:
    """As VolumeAccumulator for k images: data and weight [k, y + centre, x]."""

    data: Complex[Tensor, "k size half"]
    weight: Float[Tensor, "k size half"]
    box: int
    padding: int
    max_radius: int

    @property
    def centre(self) -> int:
        """Index of zero frequency along y."""
        return int(self.data.shape[1]) // 2

    def add_(self, other: ImageAccumulator) -> None:
        """Add another accumulator's sums."""
        self.data += other.data
        self.weight += other.weight


def empty_volume(
    box: int,
    padding: int = 2,
    max_radius: int | None = None,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> VolumeAccumulator:
    """An accumulator of zeros. dtype: float32, or float64 where sums must not depend on their order."""
    radius = box // 2 if max_radius is None else min(max_radius, box // 2)
    size, half = storage_size(padding, radius)
    weight = torch.zeros(size, size, half, dtype=dtype, device=device)
    data = torch.zeros(size, size, half, dtype=_complex(dtype), device=device)
    return VolumeAccumulator(data, weight, box, padding, radius)


def empty_images(
    k: int,
    box: int,
    padding: int = 2,
    max_radius: int | None = None,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> ImageAccumulator:
    """An accumulator of zeros for k images."""
    radius = box // 2 if max_radius is None else min(max_radius, box // 2)
    size, half = storage_size(padding, radius)
    weight = torch.zeros(k, size, half, dtype=dtype, device=device)
    data = torch.zeros(k, size, half, dtype=_complex(dtype), device=device)
    return ImageAccumulator(data, weight, box, padding, radius)


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype == torch.float32 else torch.complex128
