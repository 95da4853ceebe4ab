"""Transforms between a small box and an oversampled spectrum, an axis at a time.

Each axis is padded just before its transform, or cropped just after it, so that most of the padded box is never made:
about half the arithmetic of the whole transform, and a quarter of its memory.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.fourier import Ndim


def to_oversampled(
    values: Float[Tensor, "*batch_and_box"], padded: int, size: int, half: int, ndim: Ndim
) -> Complex[Tensor, "*batch_and_half"]:
    """The transform of the last ndim axes padded to `padded`: (..., size, half) frequencies about zero, or with z.

    size is odd, zero frequency in its middle; half begins with it. Frequencies beyond Nyquist are zero.
    """
    stored = min(half, padded // 2 + 1)
    data = torch.fft.rfft(_padded(values, -1, padded), dim=-1)[..., :stored]
    for dim in range(-2, -ndim - 1, -1):
        data = torch.fft.fft(_padded(data, dim, padded), dim=dim)
    reach = min(size // 2, padded // 2)
    out = data.new_zeros(*values.shape[:-ndim], *(size,) * (ndim - 1), half)
    middle = size // 2
    sides = [(slice(middle, middle + reach + 1), slice(0, reach + 1))]
    sides += [(slice(middle - reach, middle), slice(padded - reach, padded))]
    for pieces in itertools.product(sides, repeat=ndim - 1):
        to, origin = zip(*pieces, strict=True)
        out[(..., *to, slice(0, stored))] = data[(..., *origin, slice(0, stored))]
    return out


def to_density(data: Complex[Tensor, "padded padded half"], box: int) -> Float[Tensor, "box box box"]:
    """Inverse transform of an oversampled half volume in FFT order, cropped to the box."""
    padded = data.shape[0]
    for dim in (0, 1):
        data = _crop(torch.fft.ifft(data, dim=dim), dim, box)
    return _crop(torch.fft.irfft(data, n=padded, dim=2), 2, box)


def wrap(data: Tensor, dim: int, padded: int) -> Tensor:
    """Centred frequencies of one axis to FFT order in `padded` points; Nyquist and what lies beyond is left out."""
    reach = min(data.shape[dim] // 2, padded // 2 - 1)
    centre = data.shape[dim] // 2
    shape = list(data.shape)
    shape[dim] = padded - 2 * reach - 1
    positive = data.narrow(dim, centre, reach + 1)
    negative = data.narrow(dim, centre - reach, reach)
    return torch.cat([positive, data.new_zeros(shape), negative], dim)


def _padded(data: Tensor, dim: int, padded: int) -> Tensor:
    """Points of one axis, centred at box // 2, in FFT order among zeros."""
    box = data.shape[dim]
    shape = list(data.shape)
    shape[dim] = padded - box
    left = box // 2
    return torch.cat([data.narrow(dim, left, box - left), data.new_zeros(shape), data.narrow(dim, 0, left)], dim)


def _crop(data: Tensor, dim: int, box: int) -> Tensor:
    """Points -box//2 .. box//2 - 1 of an axis in FFT order, centred."""
    half = box // 2
    return torch.cat([data.narrow(dim, data.shape[dim] - half, half), data.narrow(dim, 0, box - half)], dim)
