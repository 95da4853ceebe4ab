"""Fourier shell correlation and the resolution read from it."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.core.fourier import Ndim, shell_sum, to_fourier


def fsc_ft(
    a_ft: Complex[Tensor, "*batch_and_half"], b_ft: Complex[Tensor, "*batch_and_half"], box: int, ndim: Ndim = 3
) -> Float[Tensor, "*batch n_shells"]:
    """Correlation per shell 0 .. box//2 of two transforms (3D: FSC, 2D: FRC); 0 where either is empty."""
    wide = torch.complex128
    a, b = a_ft.to(wide), b_ft.to(wide)
    cross = shell_sum((a * b.conj()).real, box, ndim)
    norm = (shell_sum(a.abs().square(), box, ndim) * shell_sum(b.abs().square(), box, ndim)).sqrt()
    return torch.where(norm > 0, cross / norm.clamp(min=1e-300), torch.zeros_like(cross))


def fsc(a: Float[Tensor, "*box"], b: Float[Tensor, "*box"]) -> Float[Tensor, "n_shells"]:
    """Fourier shell correlation of two cubic maps (or ring correlation of two square images).

    Harauz and van Heel (1986) Optik 73, 146. Shell s is at s / (box * pixel_size) per A.
    """
    ndim: Ndim = 3 if a.dim() == 3 else 2
    return fsc_ft(to_fourier(a, ndim), to_fourier(b, ndim), a.shape[-1], ndim)


def resolution_shell(curve: Float[Tensor, "n_shells"], threshold: float = 0.143) -> int:
    """Last shell before the curve first falls below threshold (never less than 1)."""
    below = torch.nonzero(curve[1:] < threshold)
    return max(1, int(below[0]) if below.numel() else curve.numel() - 1)


def shell_resolution(shell: int, box: int, pixel_size: float) -> float:
    """Resolution in A of a shell."""
    return box * pixel_size / shell


def fsc_resolution(curve: Float[Tensor, "n_shells"], box: int, pixel_size: float, threshold: float = 0.143) -> float:
    """Resolution in A of the last shell before the curve first falls below threshold, as RELION states it."""
    return shell_resolution(resolution_shell(curve, threshold), box, pixel_size)
