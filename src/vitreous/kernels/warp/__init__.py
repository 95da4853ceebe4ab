"""Reading an image at positions displaced by a smooth field, with cubic B-splines.

Unser, Aldroubi and Eden (1993) IEEE Trans. Signal Process. 41, 821. The spline's own blur is undone beforehand
by `prefilter`, in Fourier space where a movie frame already is: the interpolation is exact at whole pixels and
keeps more of the high frequencies than linear interpolation: over all sub-pixel positions the signal's amplitude
is 0.99 at half Nyquist, 0.83 at 0.8 Nyquist (linear: 0.81, 0.57), and since noise fades with it the
signal-to-noise ratio loses 0.02% and 4% (linear: 1.5% and 17%).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.warp import cpu, cuda, reference


def prefilter(shape: tuple[int, int], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Factors (ny, 1) and (nx//2+1,) that turn an image's rfft into that of its cubic spline coefficients."""
    ky = torch.fft.fftfreq(shape[0], dtype=torch.float64, device=device)[:, None]
    kx = torch.fft.rfftfreq(shape[1], dtype=torch.float64, device=device)
    return tuple((3.0 / (2.0 + torch.cos(2.0 * torch.pi * k))).to(torch.float32) for k in (ky, kx))  # type: ignore[return-value]


def warp(splines: Float[Tensor, "height width"], field: Float[Tensor, "2 6"]) -> Float[Tensor, "height width"]:
    """Value at (x, y) of the spline image at (x + dx, y + dy).

    splines: cubic B-spline coefficients (see `prefilter`). field: polynomial of the displacement in x and in y,
    in pixels, over (1, u, u^2, v, v^2, uv) with u = x/width - 0.5, v = y/height - 0.5.
    Periodic, as the Fourier shifts before it are.
    """
    if splines.device.type == "cpu":
        return cpu.warp(splines, field)
    return cuda.warp(splines, field)


def warp_reference(splines: Float[Tensor, "height width"], field: Float[Tensor, "2 6"]) -> Tensor:
    """The obvious float64 form of `warp`."""
    return reference.warp(splines, field)
