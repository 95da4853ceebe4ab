"""A map's Fourier transform at any spatial frequency, whatever its box and voxel size."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.fourier import crop_fourier, to_fourier
from vitreous.core.masks import soft_sphere
from vitreous.data.volume import Volume
from vitreous.kernels.project import interpolation_envelope

_PADDING = 2


@dataclass(frozen=True)
class SampledTransform:
    """The transform of a map on a cube (size,)*3 of frequencies around zero, both Hermitian halves.

    data: index [z + c, y + c, x + c] is the coefficient at (z, y, x) steps, times the voxel's volume (so that maps
    of other voxel sizes compare). step: spacing of the samples in 1/A. max_frequency: reach in 1/A.
    """

    data: Complex[Tensor, "size size size"]
    step: float
    max_frequency: float

    def __call__(self, frequencies: Float[Tensor, "*batch 3"]) -> Complex[Tensor, "*batch"]:
        """Coefficients at frequencies (x, y, z) in 1/A by linear interpolation; differentiable in frequencies."""
        size = self.data.shape[0]
        position = (frequencies / self.step + size // 2).clamp(0, size - 1.001)
        corner = position.detach().floor().to(torch.int64)
        part = position - corner
        flat = self.data.reshape(-1)
        first = (corner[..., 2] * size + corner[..., 1]) * size + corner[..., 0]
        total = torch.zeros(frequencies.shape[:-1], dtype=self.data.dtype, device=self.data.device)
        for z, y, x in itertools.product((0, 1), repeat=3):
            weight = torch.ones_like(part[..., 0])
            for axis, side in ((0, x), (1, y), (2, z)):
                weight = weight * (part[..., axis] if side else 1.0 - part[..., axis])
            total = total + weight * flat[first + (z * size + y) * size + x]
        return total


def sampled_transform(volume: Volume, max_frequency: float, mask_radius: float | None = None) -> SampledTransform:
    """Make a map ready to be sampled out to max_frequency (1/A, cut at Nyquist).

    mask_radius: A, of a soft sphere outside which density counts as none (default: nearly the inscribed sphere).
    """
    box, voxel = volume.box, volume.voxel_size
    radius = 0.46 * box if mask_radius is None else mask_radius / voxel
    edge = max(2.0, 0.04 * box)
    density = volume.density.to(torch.float64)
    mask = soft_sphere(box, min(radius, 0.5 * box - edge), edge=edge, ndim=3, dtype=torch.float64)
    solvent = (density * (1.0 - mask)).sum() / (1.0 - mask).sum()
    density = (density - solvent) * mask
    density = density / interpolation_envelope(box, _PADDING, 3)
    padded = torch.zeros((box * _PADDING,) * 3, dtype=torch.float64)
    start = box * _PADDING // 2 - box // 2
    middle = slice(start, start + box)
    padded[middle, middle, middle] = density
    step = 1.0 / (box * _PADDING * voxel)
    reach = min(int(max_frequency / step) + 2, box * _PADDING // 2 - 1)
    half = crop_fourier(to_fourier(padded, 3), (box * _PADDING,) * 3, (2 * reach + 1,) * 3)
    half = torch.fft.fftshift(half, dim=(0, 1))
    # The other half by Hermitian symmetry: the value at -k is the conjugate.
    whole = torch.cat([half[:, :, 1:].flip((0, 1, 2)).conj(), half], dim=2)
    return SampledTransform((whole * voxel**3).contiguous(), step, (reach - 1) * step)


def half_ball(radius: int) -> Float[Tensor, "n 3"]:
    """Integer points (x, y, z) with 1 <= |k| <= radius, one of each pair k and -k."""
    axis = torch.arange(-radius, radius + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    inside = (x * x + y * y + z * z <= radius * radius) & ((x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0)))))
    return torch.stack([x[inside], y[inside], z[inside]], -1).to(torch.float64)
