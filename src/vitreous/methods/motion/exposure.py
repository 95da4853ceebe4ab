"""Exposure weighting of a sum without a transform of every frame.

The weights w(i, k) of frame i at frequency k are exponentials that fade with the exposure (core.dose): as a matrix,
frames by frequencies, they have a numerical rank of about five. With w(i, k) = sum_r a(r, i) c(r, k),
sum_i w(i, k) F_i(k) = sum_r c(r, k) FT[sum_i a(r, i) f_i](k).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.dose import dose_weights
from vitreous.kernels.sums_of_spectra import weigh

_STEPS = 8192  # frequencies of a curve, from zero to the corner of the transform
_ERROR = 1e-5  # largest error of a weight (the largest of all weights is 1)


@dataclass(frozen=True)
class Exposure:
    """pixel_size A; voltage kV; dose e/A^2 a frame (0: unknown, no weighting and no grouping by dose)."""

    pixel_size: float
    voltage: float = 300.0
    dose: float = 0.0


@functools.lru_cache(maxsize=16)
def exposure_basis(
    n_frames: int, pixel_size: float, exposure: Exposure
) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r m"]]:
    """a(r, i) and c(r, k) at m frequencies from 0 to the corner of a transform with this pixel size (A).

    Kept, as they are the same for every movie of a kind: not to be written to.
    """
    k = torch.linspace(0.0, math.sqrt(0.5) / pixel_size, _STEPS, dtype=torch.float64)
    weights = dose_weights(k, exposure.dose * torch.arange(n_frames, dtype=torch.float64), exposure.voltage)
    left, singular, right = torch.linalg.svd(weights, full_matrices=False)
    for rank in range(1, n_frames + 1):
        curves = singular[:rank, None] * right[:rank]
        if rank == n_frames or float((left[:, :rank] @ curves - weights).abs().max()) < _ERROR:
            break
    return left[:, :rank].T.to(torch.float32), curves.to(torch.float32)


def combine(
    sums_ft: list[Complex[Tensor, "height half"]], curves: Float[Tensor, "r m"], pixel_size: float, width: int
) -> Complex[Tensor, "height half"]:
    """sum_r c(r, |k|) FT_r(k) over the rffts of images `width` pixels wide; the transforms are used up."""
    per_step = (curves.shape[1] - 1) * pixel_size / math.sqrt(0.5)
    ky = torch.fft.fftfreq(len(sums_ft[0]), pixel_size) * per_step
    kx = torch.fft.rfftfreq(width, pixel_size) * per_step
    return weigh(sums_ft, curves, ky, kx)
