"""Warped sums as their definition reads: float64, a 4 by 4 neighbourhood gathered for every pixel."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def positions(height: int, width: int, field: Float[Tensor, "2 6"]) -> tuple[Tensor, Tensor]:
    """Where each output pixel reads: (y, x), each (height, width)."""
    x = torch.arange(width, device=field.device, dtype=field.dtype)[None, :]
    y = torch.arange(height, device=field.device, dtype=field.dtype)[:, None]
    u, v = x / width - 0.5, y / height - 0.5
    terms = (torch.ones_like(u), u, u * u, v, v * v, u * v)
    dx, dy = (sum((c * term for c, term in zip(row, terms, strict=True)), u * 0.0) for row in field)
    return y + dy, x + dx


def weights(fraction: Tensor) -> list[Tensor]:
    """The four cubic B-spline weights of a position `fraction` after the second of four pixels."""
    t = fraction
    return [
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    ]


def warp(splines: Float[Tensor, "height width"], field: Float[Tensor, "2 6"]) -> Float[Tensor, "height width"]:
    """Value at (x, y) of the spline image (coefficients given) at (x + dx, y + dy)."""
    image = splines.to(torch.float64)
    height, width = image.shape
    py, px = positions(height, width, field.to(device=image.device, dtype=torch.float64))
    iy, ix = py.floor(), px.floor()
    wy, wx = weights(py - iy), weights(px - ix)
    out = torch.zeros_like(image)
    for j in range(4):
        rows = (iy.long() + j - 1).remainder(height)
        for i in range(4):
            columns = (ix.long() + i - 1).remainder(width)
            out += wy[j] * wx[i] * image[rows, columns]
    return out


def add_warped(
    sums: Float[Tensor, "r height width"],
    frames: Float[Tensor, "n height width"],
    fields: Float[Tensor, "n 2 6"],
    coefficients: Float[Tensor, "r n"],
) -> None:
    """See `vitreous.kernels.warp.add_warped`; sums in float64."""
    for frame, field, column in zip(frames, fields, coefficients.T, strict=True):
        sums += column.to(torch.float64)[:, None, None] * warp(frame, field)
