"""Sums over the shells of an oversampled half volume, and its division by weights that have a prior by shell.

A volume of box 256, twice oversampled, is 70 million points: each step over all of it takes as long as reading it, so
each of these makes one walk, and finds the shell of a point as it goes. Floor of a division: 12 bytes a point read,
8 written.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.kernels.shells import cpu, reference
from vitreous.kernels.shells.reference import shells_of

__all__ = ["divide", "shell_totals", "shells_of"]


def shell_totals(sums: VolumeAccumulator) -> tuple[Float[Tensor, "n_shells"], Float[Tensor, "n_shells"]]:
    """Sum of the weights in each shell 0 .. box//2 of the unpadded map, and the number of grid points (float64).

    Of the full, Hermitian volume; nothing beyond the sums' radius.
    """
    return (cpu if _on_fast_path(sums) else reference).shell_totals(sums)


def divide(
    sums: VolumeAccumulator,
    prior: Float[Tensor, "n_shells"],
    floor: Float[Tensor, "n_shells"],
    used: Bool[Tensor, "n_shells"],
) -> Complex[Tensor, "padded padded half"]:
    """data / max(weight + prior, floor) in the shells that are used and where there is weight; 0 elsewhere.

    The result is in FFT order along z and y, its Nyquist planes zero; x >= 0 alone.
    """
    return (cpu if _on_fast_path(sums) else reference).divide(sums, prior, floor, used)


def _on_fast_path(sums: VolumeAccumulator) -> bool:
    return sums.data.dtype == torch.complex64 and not sums.data.is_cuda
