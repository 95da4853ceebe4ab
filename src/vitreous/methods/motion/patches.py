"""Cutting aligned frames into soft-edged patches."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels import cut_patches as kernel
from vitreous.kernels.add_turned import add_turned
from vitreous.methods.motion.spectra import Band, phases

_OVERLAP = 1.25  # patches reach this much beyond their cell; the soft edge takes it back
_EDGE = 0.25  # fraction of a patch that is soft edge


def cut_patches(
    frames: Float[Tensor, "f height width"],
    band: Band,
    displacements: Float[Tensor, "f 2"],
    member: NDArray[np.int64],
    patches: tuple[int, int],
) -> tuple[Complex[Tensor, "p g height half"], Band, NDArray[np.float64]]:
    """Transforms of soft-edged patches of globally aligned frames, their band, and centres (p, 2) as (x, y).

    member: (f,) which of g groups each frame is added to, rising. Frames are cut at whole pixels, the rest is a phase.
    """
    (ny, nx), device = band.cropped, frames.device
    sizes = [min(full, 2 * math.ceil(_OVERLAP * full / n / 2)) for full, n in ((ny, patches[1]), (nx, patches[0]))]
    starts = [
        np.round(np.linspace(0, full - size, n)).astype(int)
        for full, size, n in ((ny, sizes[0], patches[1]), (nx, sizes[1], patches[0]))
    ]
    window = (_taper(sizes[0]).to(device), _taper(sizes[1]).to(device))
    corners = [(int(y), int(x)) for y in starts[0] for x in starts[1]]
    # Movie pixels to one of these, as (x, y).
    scale = torch.tensor([band.shape[1] / nx, band.shape[0] / ny], dtype=torch.float64)
    extent = (round(sizes[0] * float(scale[1])), round(sizes[1] * float(scale[0])))
    patch_band = Band(extent, (sizes[0], sizes[1]))
    shape = (len(corners), int(member[-1]) + 1, sizes[0], sizes[1] // 2 + 1)
    out = torch.empty(shape, dtype=torch.complex64, device=device)
    cut = torch.empty(len(corners), *sizes, device=device)
    begun = np.diff(member, prepend=-1) > 0
    for group, anew, frame, moved in zip(member, begun, frames, displacements, strict=True):
        whole = (moved / scale).round()
        there = [(y + int(whole[1]), x + int(whole[0])) for y, x in corners]
        kernel.cut_patches(frame, there, window, cut)
        row, column = phases(patch_band, moved - whole * scale, device)
        add_turned(out[:, group], torch.fft.rfft2(cut), row[:, 0], column, anew=bool(anew))
    centres = np.array([(x + sizes[1] / 2, y + sizes[0] / 2) for y, x in corners]) * scale.numpy()
    return out, patch_band, centres


def _taper(size: int) -> Float[Tensor, "size"]:
    """Raised-cosine edges of a window."""
    distance = (torch.minimum(torch.arange(size), size - 1 - torch.arange(size)) + 0.5) / (_EDGE * size)
    return 0.5 - 0.5 * torch.cos(torch.pi * distance.clamp(max=1.0)).to(torch.float32)
