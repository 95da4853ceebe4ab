"""A user's map made to fit the particles: their pixel size, their box."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import lowpass, rescale, to_fourier, to_real
from vitreous.data.volume import Volume

_SAME = 1e-3  # voxel sizes that differ by less than this fraction are taken to be one


def fit_reference(volume: Volume, box: int, pixel_size: float) -> Float[Tensor, "box box box"]:
    """The density resampled to pixel_size (A), then cut or padded about its centre to the box.

    The resampled box is rounded to an even number, which keeps the pixel size right to half a pixel in the old box.
    """
    density = volume.density
    if abs(volume.voxel_size / pixel_size - 1.0) > _SAME:
        resampled = max(2, 2 * round(volume.box * volume.voxel_size / pixel_size / 2.0))
        density = rescale(density, (resampled,) * 3)
    return resize(density, box)


def resize(density: Float[Tensor, "old old old"], box: int) -> Float[Tensor, "box box box"]:
    """Cut or pad with zeros so that index old//2 becomes index box//2."""
    old = density.shape[-1]
    out = torch.zeros(box, box, box, dtype=density.dtype)
    first = old // 2 - box // 2
    source = slice(max(0, first), min(old, first + box))
    target = slice(max(0, -first), max(0, -first) + source.stop - source.start)
    out[target, target, target] = density[source, source, source]
    return out


def lowpassed(density: Float[Tensor, "box box box"], pixel_size: float, resolution: float) -> Tensor:
    """The density to a resolution (A), float32: what a first iteration may know of its reference."""
    shape = (density.shape[-1],) * 3
    transfer = lowpass(shape, pixel_size, resolution).to(torch.float32)
    return to_real(to_fourier(density.to(torch.float32), 3) * transfer, shape, 3)
