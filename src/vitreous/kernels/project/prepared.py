"""Volumes and images made ready to be cut: oversampled, corrected for the interpolation, held compactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.fourier import Ndim
from vitreous.core.padded_fourier import to_oversampled


class _Sampled(Protocol):
    @property
    def max_radius(self) -> int: ...


@dataclass(frozen=True)
class ProjectableVolume:
    """The transform of a volume on a grid `padding` times finer, out to max_radius, complex64 (or 128).

    data: index [z + centre, y + centre, x] holds the coefficient at (z, y, x) in oversampled Fourier pixels, x >= 0;
    the other half follows from Hermitian symmetry. max_radius: in Fourier pixels of the unpadded box.
    """

    data: Complex[Tensor, "size size half"]
    box: int
    padding: int
    max_radius: int

    @property
    def centre(self) -> int:
        """Index of zero frequency along z and y."""
        return int(self.data.shape[1]) // 2

    def to(self, device: torch.device) -> ProjectableVolume:
        """The same on another device."""
        return ProjectableVolume(self.data.to(device), self.box, self.padding, self.max_radius)


@dataclass(frozen=True)
class ProjectableImages:
    """As ProjectableVolume for k square images: data[k, y + centre, x]."""

    data: Complex[Tensor, "k size half"]
    box: int
    padding: int
    max_radius: int

    @property
    def centre(self) -> int:
        """Index of zero frequency along y."""
        return int(self.data.shape[1]) // 2

    def to(self, device: torch.device) -> ProjectableImages:
        """The same on another device."""
        return ProjectableImages(self.data.to(device), self.box, self.padding, self.max_radius)


def storage_size(padding: int, max_radius: int) -> tuple[int, int]:
    """(size, half): side of the centred axes and of the x axis that hold max_radius and one neighbour beyond."""
    reach = padding * max_radius + 1
    return 2 * reach + 1, reach + 1


def interpolation_envelope(
    box: int, padding: int, ndim: Ndim, *, device: torch.device | None = None, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "*box"]:
    """What linear interpolation between oversampled Fourier pixels multiplies a density with: a sinc^2 an axis."""
    position = (torch.arange(box, device=device, dtype=dtype) - box // 2) / (box * padding)
    axis = torch.sinc(position).square()
    envelope = axis
    for _ in range(ndim - 1):
        envelope = envelope[..., None] * axis
    return envelope


def prepare_volume(
    density: Float[Tensor, "box box box"],
    padding: int = 2,
    max_radius: int | None = None,
    *,
    corners: bool = False,
    dtype: torch.dtype = torch.float32,
) -> ProjectableVolume:
    """Make a density (z, y, x) ready for projection.

    padding: oversampling of the Fourier grid, 1 or 2. max_radius: largest Fourier radius that will be asked for, in
    pixels of the unpadded box (default: Nyquist). corners: instead, all of the projections' rfft grid; what lies beyond
    the volume's own cube of frequencies is zero.
    """
    box, radius = _checked(density, 3, padding, max_radius)
    if corners:
        radius = math.ceil(box * math.sqrt(0.5))
    return ProjectableVolume(_oversampled(density[None], 3, padding, radius, dtype)[0], box, padding, radius)


def prepare_images(
    images: Float[Tensor, "k box box"],
    padding: int = 2,
    max_radius: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> ProjectableImages:
    """As prepare_volume for 2D references (k, y, x)."""
    box, radius = _checked(images, 2, padding, max_radius)
    return ProjectableImages(_oversampled(images, 2, padding, radius, dtype), box, padding, radius)


def _checked(values: Tensor, ndim: Ndim, padding: int, max_radius: int | None) -> tuple[int, int]:
    sides = set(values.shape[-ndim:])
    box = int(values.shape[-1])
    if len(sides) != 1 or box % 2:
        raise ValueError(f"a square or cubic, even box is needed, not {tuple(values.shape)}")
    if padding not in (1, 2, 3, 4):
        raise ValueError(f"padding {padding} is not one of 1, 2, 3, 4")
    return box, min(box // 2, max_radius) if max_radius is not None else box // 2


def _oversampled(values: Tensor, ndim: Ndim, padding: int, max_radius: int, dtype: torch.dtype) -> Tensor:
    """Transforms (k, ...) of padded, envelope-corrected densities, cropped to max_radius and centred but for x."""
    box = int(values.shape[-1])
    padded = box * padding
    corrected = values.to(dtype) / interpolation_envelope(box, padding, ndim, device=values.device, dtype=dtype)
    return to_oversampled(corrected, padded, *storage_size(padding, max_radius), ndim)


def inside_radius(prepared: _Sampled, coordinates: Float[Tensor, "m 2"]) -> Tensor:
    """Which coordinates lie within the radius that was prepared (bool, m)."""
    limit = (prepared.max_radius + 1e-4) ** 2
    return coordinates.square().sum(1) <= limit


def in_plane_rotations(angles: Float[Tensor, "n"]) -> Float[Tensor, "n 2 2"]:
    """psi in degrees to the upper left 2 x 2 block of the pose matrix with rot = tilt = 0."""
    radians = angles * (math.pi / 180.0)
    cosine, sine = torch.cos(radians), torch.sin(radians)
    return torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)
