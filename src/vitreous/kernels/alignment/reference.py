"""Leave-one-out correlation sums, written as the definition reads; any device, any precision."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def sums(
    frames_ft: Complex[Tensor, "p f height half"],
    weights: Float[Tensor, "height half"],
    ky: Float[Tensor, "height"],
    kx: Float[Tensor, "half"],
    displacements: Float[Tensor, "p f 2"],
) -> Float[Tensor, "p f 9"]:
    """value, gx, gy, hxx, hyy, hxy, jxx, jyy, jxy of each patch and frame; a patch at a time for memory."""
    device, real = frames_ft.device, frames_ft.real.dtype
    qx = (2.0 * torch.pi * kx.to(device=device, dtype=torch.float64))[None, :]
    qy = (2.0 * torch.pi * ky.to(device=device, dtype=torch.float64))[:, None]
    w = weights.to(device=device, dtype=real)
    out = torch.empty(*frames_ft.shape[:2], 9, dtype=torch.float64, device=device)
    for patch in range(frames_ft.shape[0]):
        d = displacements[patch].to(device=device, dtype=torch.float64)
        row = torch.polar(torch.ones((), device=device, dtype=torch.float64), qy[None, :, 0] * d[:, 1:2])
        column = torch.polar(torch.ones((), device=device, dtype=torch.float64), qx * d[:, 0:1])
        phases = row[:, :, None].to(frames_ft.dtype) * column[:, None, :].to(frames_ft.dtype)
        aligned = frames_ft[patch] * phases
        cross = w * aligned * (aligned.sum(0) - aligned).conj()
        x, y = qx.to(real), qy.to(real)
        re, im = cross.real, cross.imag
        # Hermitian columns are counted twice in w, and |2c|^2 / 2 is the variance of 2 Re(c) at random phase
        power = 0.5 * cross.abs().square()
        terms = [re, -x * im, -y * im, -x * x * re, -y * y * re, -x * y * re]
        terms += [x * x * power, y * y * power, x * y * power]
        out[patch] = torch.stack([term.sum((-2, -1), dtype=torch.float64) for term in terms], -1)
    return out
