"""Discrete Fourier transforms with the origin at the centre of the box, and what hangs on them.

One convention for the whole suite: a transform is in rfft layout (zero frequency at index 0, last axis
half), unnormalised forward, and the origin in real space is index n//2. So a central slice of a volume's
transform *is* the transform of its projection, with no phase factors to remember.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

Ndim = Literal[2, 3]


def _axes(ndim: Ndim) -> tuple[int, ...]:
    return tuple(range(-ndim, 0))


def to_fourier(images: Float[Tensor, "*batch_and_box"], ndim: Ndim = 2) -> Complex[Tensor, "*batch_and_half"]:
    """Transform the last ndim axes; real-space origin at index n//2, rfft layout, no normalisation."""
    axes = _axes(ndim)
    return torch.fft.rfftn(torch.fft.ifftshift(images, dim=axes), dim=axes)


def to_real(
    images_ft: Complex[Tensor, "*batch_and_half"], shape: tuple[int, ...], ndim: Ndim = 2
) -> Float[Tensor, "*batch_and_box"]:
    """Invert `to_fourier`; shape: the sizes of the last ndim axes in real space (an rfft forgets parity)."""
    axes = _axes(ndim)
    return torch.fft.fftshift(torch.fft.irfftn(images_ft, s=shape, dim=axes), dim=axes)


def frequency_grid(
    shape: tuple[int, ...],
    pixel_size: float = 1.0,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, ...]:
    """Spatial frequencies (cycles per unit of pixel_size) of each rfft axis, ready to broadcast.

    For shape (ny, nx) returns ky of shape (ny, 1) and kx of shape (nx//2+1,); likewise in 3D.
    """
    ndim = len(shape)
    grids = []
    for axis, size in enumerate(shape):
        make = torch.fft.rfftfreq if axis == ndim - 1 else torch.fft.fftfreq
        k = make(size, d=pixel_size, device=device, dtype=dtype)
        grids.append(k.reshape(-1, *([1] * (ndim - 1 - axis))))
    return tuple(grids)


def radius_grid(
    shape: tuple[int, ...],
    pixel_size: float = 1.0,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "*half"]:
    """|k| in cycles per unit of pixel_size on the rfft grid of a real array of this shape."""
    squares = [k * k for k in frequency_grid(shape, pixel_size, device=device, dtype=dtype)]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    return total.sqrt()


def shell_indices(box: int, ndim: Ndim = 2, *, device: torch.device | None = None) -> Int[Tensor, "*half"]:
    """Shell of each coefficient of a (box,)*ndim array: round(|k|) in Fourier pixels, half away from zero."""
    radius = radius_grid((box,) * ndim, 1.0, device=device) * box
    # 1e-9: |k| is exact only to rounding, and 2.5 must not become 2.4999999
    return torch.floor(radius + 0.5 + 1e-9).to(torch.int64)


def hermitian_weights(
    width: int, *, device: torch.device | None = None, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "half"]:
    """How often each rfft column stands in the full transform: 1 for kx = 0 and Nyquist, else 2."""
    weights = torch.full((width // 2 + 1,), 2.0, device=device, dtype=dtype)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return weights


def shell_sum(values: Float[Tensor, "*batch_and_half"], box: int, ndim: Ndim = 2) -> Float[Tensor, "*batch n_shells"]:
    """Sum a real quantity over shells 0 .. box//2 of the full (Hermitian) transform; corners are left out."""
    n_shells = box // 2 + 1
    shells = shell_indices(box, ndim, device=values.device).reshape(-1).clamp(max=n_shells)
    weighted = values * hermitian_weights(box, device=values.device, dtype=values.dtype)
    flat = weighted.reshape(-1, shells.numel())
    out = torch.zeros(flat.shape[0], n_shells + 1, dtype=values.dtype, device=values.device)
    out.index_add_(1, shells, flat)
    return out[:, :n_shells].reshape(*values.shape[:-ndim], n_shells)


def shell_mean(values: Float[Tensor, "*batch_and_half"], box: int, ndim: Ndim = 2) -> Float[Tensor, "*batch n_shells"]:
    """Mean of a real quantity over each shell 0 .. box//2."""
    ones = torch.ones(values.shape[-ndim:], dtype=values.dtype, device=values.device)
    return shell_sum(values, box, ndim) / shell_sum(ones, box, ndim)


def from_shells(curve: Float[Tensor, "*batch n_shells"], box: int, ndim: Ndim = 2) -> Float[Tensor, "*batch_and_half"]:
    """Spread a shell curve (0 .. box//2) over the rfft grid; zero in the corners beyond."""
    n_shells = box // 2 + 1
    shells = shell_indices(box, ndim, device=curve.device)
    padded = torch.nn.functional.pad(curve[..., :n_shells], (0, 1))
    return padded[..., shells.clamp(max=n_shells)]


def crop_fourier(
    images_ft: Complex[Tensor, "*batch_and_half"], shape: tuple[int, ...], new_shape: tuple[int, ...]
) -> Complex[Tensor, "*batch_and_half"]:
    """Crop or zero-pad transforms of real arrays of `shape` to those of `new_shape` (coefficients unscaled)."""
    ndim = len(shape)
    out = images_ft
    for axis, (old, new) in enumerate(zip(shape, new_shape, strict=True)):
        dim = axis - ndim
        if axis == ndim - 1:
            keep = min(old, new) // 2 + 1
            out = out.narrow(dim, 0, keep)
            out = _append_zeros(out, dim, new // 2 + 1 - keep)
        else:
            size = min(old, new)
            # An even crop has one Nyquist row for two frequencies: it gets the positive one's, as in RELION.
            low = size // 2 + 1
            head = out.narrow(dim, 0, low)
            tail = out.narrow(dim, out.shape[dim] - (size - low), size - low)
            out = torch.cat([_append_zeros(head, dim, new - size), tail], dim)
    return out.contiguous()


def _append_zeros(values: Tensor, dim: int, count: int) -> Tensor:
    if count <= 0:
        return values
    shape = list(values.shape)
    shape[dim] = count
    return torch.cat([values, values.new_zeros(shape)], dim)


def rescale(images: Float[Tensor, "*batch_and_box"], new_shape: tuple[int, ...]) -> Float[Tensor, "*batch_and_new"]:
    """Resample real images to new_shape over the same field of view, keeping grey values (Fourier crop or pad)."""
    ndim: Ndim = 2 if len(new_shape) == 2 else 3
    shape = tuple(images.shape[-ndim:])
    gain = 1.0
    for old, new in zip(shape, new_shape, strict=True):
        gain *= new / old
    return to_real(crop_fourier(to_fourier(images, ndim), shape, new_shape) * gain, new_shape, ndim)


def shift_phases(
    shape: tuple[int, int], shifts: Float[Tensor, "*batch 2"], *, dtype: torch.dtype = torch.float32
) -> Complex[Tensor, "*batch height half"]:
    """Phase ramps that move image content by shifts (y, x) pixels: +1 moves it to the next index."""
    ky, kx = frequency_grid(shape, device=shifts.device, dtype=torch.float64)
    s = shifts.to(torch.float64)[..., None, None]
    phase = -2.0 * torch.pi * (ky * s[..., 0, :, :] + kx * s[..., 1, :, :])
    return torch.polar(torch.ones_like(phase), phase).to(
        torch.complex64 if dtype == torch.float32 else torch.complex128
    )


def shift_images(images: Float[Tensor, "*batch height width"], shifts: Float[Tensor, "*batch 2"]) -> Tensor:
    """Move images by shifts (y, x) pixels, periodically, by Fourier interpolation."""
    shape = (images.shape[-2], images.shape[-1])
    phases = shift_phases(shape, shifts, dtype=images.dtype)
    return to_real(to_fourier(images) * phases, shape)


def lowpass(
    shape: tuple[int, ...],
    pixel_size: float,
    resolution: float,
    *,
    edge: float = 2.0,
    device: torch.device | None = None,
) -> Float[Tensor, "*half"]:
    """Raised-cosine low-pass on the rfft grid: 1 below 1/resolution - half the edge, 0 above + half.

    resolution in A; edge: width in Fourier pixels of the shortest axis.
    """
    radius = radius_grid(shape, pixel_size, device=device)
    width = edge / (min(shape) * pixel_size)
    ramp = ((radius - 1.0 / resolution) / max(width, 1e-12) + 0.5).clamp(0.0, 1.0)
    return 0.5 + 0.5 * torch.cos(torch.pi * ramp)
