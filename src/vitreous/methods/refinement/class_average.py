"""From 2D sums to class averages: Wiener division on the oversampled grid and gridding correction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import to_real
from vitreous.kernels.backproject import ImageAccumulator
from vitreous.kernels.project.prepared import interpolation_envelope


@dataclass(frozen=True)
class Average:
    """One class average and how well it is known.

    image: (box, box) float32; data_vs_prior: SSNR by shell; sigma2: variance of its coefficients from the data alone.
    """

    image: Float[Tensor, "box box"]
    data_vs_prior: Float[Tensor, "n_shells"]
    sigma2: Float[Tensor, "n_shells"]


def average(sums: ImageAccumulator, tau2: Float[Tensor, "n_shells"], tau2_fudge: float) -> Average:
    """Solve one class's sums with the prior 1 / (tau2_fudge * tau2) (Scheres 2012, equation 3).

    tau2: signal power by shell, 0 .. box // 2.
    """
    data, weight = _hermitian(sums)
    padding, n_shells = sums.padding, sums.box // 2 + 1
    radius = _radius(data.shape[0], data.shape[1]) / padding
    shells = torch.floor(radius + 0.5 + 1e-9).to(torch.int64)
    inside = (radius <= sums.max_radius + 0.5) & (shells < n_shells)
    # the oversampled grid holds each coefficient padding^2 times, so a point has that much less of the weight
    prior = padding**2 * tau2_fudge * tau2.to(torch.float64)
    mean_weight = _shell_mean(weight, shells, inside, n_shells)
    inverse_prior = 1.0 / torch.maximum(prior, 1e-3 / mean_weight.clamp(min=1e-30))
    index = shells.clamp(max=n_shells - 1)
    floored = torch.maximum(weight, 1e-3 * mean_weight[index])
    denominator = (floored + inverse_prior[index]).clamp(min=1e-30)
    solved = torch.where(inside, data / denominator, torch.zeros_like(data))
    image = _to_image(solved, sums.box, padding)
    image = image / interpolation_envelope(sums.box, padding, 2)
    data_vs_prior = mean_weight * prior
    return Average(image.to(torch.float32), data_vs_prior, 1.0 / (padding**2 * mean_weight).clamp(min=1e-30))


def _hermitian(sums: ImageAccumulator) -> tuple[Tensor, Tensor]:
    """Sums in float64 with column x = 0 made Hermitian: a point and its opposite hold the same sum."""
    data, weight = sums.data[0].to(torch.complex128).clone(), sums.weight[0].to(torch.float64).clone()
    data[:, 0] = data[:, 0] + data[:, 0].flip(0).conj()
    weight[:, 0] = weight[:, 0] + weight[:, 0].flip(0)
    return data, weight


def _radius(size: int, half: int) -> Tensor:
    y = torch.arange(size, dtype=torch.float64) - size // 2
    x = torch.arange(half, dtype=torch.float64)
    return torch.hypot(y[:, None].expand(size, half), x.expand(size, half))


def _shell_mean(values: Tensor, shells: Tensor, inside: Tensor, n_shells: int) -> Tensor:
    ones = torch.zeros(n_shells, dtype=torch.float64).index_add_(0, shells[inside], torch.ones_like(values[inside]))
    total = torch.zeros(n_shells, dtype=torch.float64).index_add_(0, shells[inside], values[inside])
    return total / ones.clamp(min=1.0)


def _to_image(centred: Tensor, box: int, padding: int) -> Float[Tensor, "box box"]:
    """Real image of a centred, cropped half transform on the oversampled grid."""
    padded = box * padding
    full = torch.zeros(padded, padded // 2 + 1, dtype=centred.dtype)
    size, half = centred.shape
    rows = torch.arange(size) - size // 2
    known = rows.abs() < padded // 2
    columns = min(half, padded // 2 + 1)
    full[rows[known] % padded, :columns] = centred[known, :columns]
    first = padded // 2 - box // 2
    return to_real(full, (padded, padded))[first : first + box, first : first + box]
