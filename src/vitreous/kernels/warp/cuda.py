"""Warped sums on a GPU: the reference's gathers in float32, a frame at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.warp.reference import positions, weights


def warp(splines: Float[Tensor, "height width"], field: Float[Tensor, "2 6"]) -> Float[Tensor, "height width"]:
    """See `reference.warp`; positions in float64 (float32 is too coarse at 8,000 pixels)."""
    height, width = splines.shape
    flat = splines.reshape(-1)
    py, px = positions(height, width, field.to(device=splines.device, dtype=torch.float64))
    iy, ix = py.floor(), px.floor()
    wy, wx = weights((py - iy).to(splines.dtype)), weights((px - ix).to(splines.dtype))
    rows, columns = iy.long(), ix.long()
    del py, px, iy, ix
    out = torch.zeros_like(splines)
    for j in range(4):
        start = (rows + (j - 1)).remainder(height) * width
        for i in range(4):
            out.addcmul_(wy[j] * wx[i], flat[start + (columns + (i - 1)).remainder(width)])
    return out


def add_warped(
    sums: Float[Tensor, "r height width"],
    frames: Float[Tensor, "n height width"],
    fields: Float[Tensor, "n 2 6"],
    coefficients: Float[Tensor, "r n"],
) -> None:
    """See `vitreous.kernels.warp.add_warped`; frames are taken to the device of the sums one by one."""
    for frame, field, column in zip(frames, fields, coefficients.T, strict=True):
        moved = warp(frame.to(sums.device), field)
        for one, weight in zip(sums, column.tolist(), strict=True):
            if weight:
                one.add_(moved, alpha=weight)
