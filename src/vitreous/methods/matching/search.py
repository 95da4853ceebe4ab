"""The search itself: blocks of orientations, their templates, their correlations, the running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.search_grid import pair_twins
from vitreous.kernels.correlate import SearchImage, Statistics, correlate, correlation
from vitreous.methods.matching.templates import TemplateMaker

_BLOCK_BYTES = 8 << 20  # of templates: more would be fresh memory for every block


@dataclass(frozen=True)
class Orientations:
    """angles: (n, 3), numbered in this order. first: those to project. twins: the number of each one's twin."""

    angles: Float[Tensor, "n 3"]
    first: NDArray[np.int64]
    twins: NDArray[np.int64]

    @staticmethod
    def of(angles: Float[Tensor, "n 3"], *, with_twins: bool = True) -> Orientations:
        """Pair each orientation with the one at psi + 180, where both are in the list."""
        if with_twins:
            return Orientations(angles, *pair_twins(angles))
        return Orientations(angles, np.arange(len(angles)), np.full(len(angles), -1, np.int64))

    def __len__(self) -> int:
        return len(self.angles)

    def blocks(self, size: int) -> list[NDArray[np.int64]]:
        """Positions in `first`, `size` at a time: the unit of work, of checkpoints and of distribution."""
        return [np.arange(i, min(i + size, len(self.first))) for i in range(0, len(self.first), size)]


def block_size(maker: TemplateMaker, memory: float) -> int:
    """How many projections to make at once, within `memory` bytes and a size that leaves the progress visible."""
    pixels = float(maker.n_planes * maker.box * (maker.box + 2))
    return int(max(1, min(256 // maker.n_planes + 1, _BLOCK_BYTES // (4.0 * pixels), memory // (40.0 * pixels))))


def search_block(
    image: SearchImage,
    maker: TemplateMaker,
    orientations: Orientations,
    block: NDArray[np.int64],
    statistics: Statistics,
) -> None:
    """Correlate one block. The number of a correlation is orientation * planes + plane."""
    chosen, twins = orientations.first[block], orientations.twins[block]
    templates = maker(orientations.angles[torch.from_numpy(chosen)])
    planes = np.arange(maker.n_planes)
    numbers = (chosen[:, None] * maker.n_planes + planes).reshape(-1)
    paired = np.where(twins[:, None] >= 0, twins[:, None] * maker.n_planes + planes, -1).reshape(-1)
    any_twin = bool((paired >= 0).any())
    correlate(image, templates, torch.from_numpy(numbers), torch.from_numpy(paired) if any_twin else None, statistics)


def search(
    image: SearchImage, maker: TemplateMaker, orientations: Orientations, statistics: Statistics, size: int
) -> Iterator[int]:
    """Go through all blocks; yields after each the number of correlations so far (and lets the caller save)."""
    for block in orientations.blocks(size):
        search_block(image, maker, orientations, block, statistics)
        yield statistics.count


@dataclass(frozen=True)
class SearchMaps:
    """Maps over valid positions (y, x), position = pixel of the image under the template's first row and column.

    mip: highest correlation; scaled_mip: (mip - mean) / deviation; mean, variance: of all correlations at the pixel;
    phi, theta, psi (degrees) and relative_defocus (A) of the highest. n_correlations: at each pixel. scale: the best of
    several voxel sizes over the assumed one, where several were searched.
    """

    mip: Float[Tensor, "y x"]
    scaled_mip: Float[Tensor, "y x"]
    mean: Float[Tensor, "y x"]
    variance: Float[Tensor, "y x"]
    phi: Float[Tensor, "y x"]
    theta: Float[Tensor, "y x"]
    psi: Float[Tensor, "y x"]
    relative_defocus: Float[Tensor, "y x"]
    n_correlations: int
    scale: Float[Tensor, "y x"] | None = None


def correlation_mean(image: SearchImage, statistics: Statistics) -> Float[Tensor, "y x"]:
    """Mean of all correlations, float64: one correlation with the sum of all templates."""
    if image.pixels.dtype == torch.float64:
        return correlation(image.pixels, statistics.template_sum) / statistics.count
    total = statistics.template_sum.cpu()
    pixels_ft = torch.fft.rfft2(image.pixels.cpu().to(torch.float64), s=image.padded)
    product = pixels_ft * torch.fft.rfft2(total, s=image.padded).conj()
    rows, columns = image.valid_shape
    return torch.fft.irfft2(product, s=image.padded)[:rows, :columns] / statistics.count


def finish(
    image: SearchImage,
    statistics: Statistics,
    angles: Float[Tensor, "n 3"],
    planes: Float[Tensor, "planes"],
    scales: tuple[float, ...] = (1.0,),
) -> SearchMaps:
    """Turn running statistics into maps (on the CPU), with the trimmed moments where these were kept.

    Raises ValueError where nothing was searched or the correlations at some pixel do not vary.
    """
    if statistics.count == 0:
        raise ValueError("no correlation has been taken up")
    if statistics.trimmed is None:
        mean = correlation_mean(image, statistics)
        variance = statistics.sum_squares.cpu() / statistics.count - mean.square()
    else:
        mean, variance = untrimmed_moments(statistics)
    variance = variance.clamp(min=0.0)
    if not bool((variance > 0).all()):
        raise ValueError("the correlations do not vary: search more orientations or defocus planes")
    mip = statistics.maximum.cpu()
    orientation, plane = split_numbers(statistics.best.cpu(), len(scales) * len(planes))
    trial, plane = split_numbers(plane, len(planes))
    phi, theta, psi = (angles[:, i].to(torch.float32)[orientation] for i in range(3))
    return SearchMaps(
        mip,
        ((mip - mean) / variance.sqrt()).to(torch.float32),
        mean.to(torch.float32),
        variance.to(torch.float32),
        phi,
        theta,
        psi,
        planes.to(torch.float32)[plane],
        statistics.count,
        torch.tensor(scales, dtype=torch.float32)[trial] if len(scales) > 1 else None,
    )


def split_numbers(numbers: Int[Tensor, "*any"], n_planes: int) -> tuple[Int[Tensor, "*any"], Int[Tensor, "*any"]]:
    """Numbers of correlations to (orientation, plane)."""
    whole = numbers.to(torch.int64)
    return torch.div(whole, n_planes, rounding_mode="floor"), whole % n_planes


def untrimmed_moments(statistics: Statistics) -> tuple[Float[Tensor, "y x"], Float[Tensor, "y x"]]:
    """Mean and variance of the normal law whose part below the cut has the moments that were kept (float64).

    Moments of a law cut above at c = (cut - mu)/sigma: mean mu - sigma h, variance sigma^2 (1 - c h - h^2) with
    h = phi(c)/Phi(c). Cohen (1959) Technometrics 1, 217. Solved by iterating on sigma and mu, which contracts as long
    as the cut lies above the mean.
    """
    trimmed = statistics.trimmed
    if trimmed is None:
        raise ValueError("no trimmed sums were kept")
    count = trimmed.count.cpu().to(torch.float64).clamp(min=1.0)
    mean = trimmed.total.cpu() / count
    variance = (trimmed.squares.cpu() / count - mean.square()).clamp(min=1e-12)
    mu, sigma, cut = mean.clone(), variance.sqrt(), trimmed.cut.cpu().to(torch.float64)
    for _ in range(60):
        c = ((cut - mu) / sigma).clamp(min=-3.0)
        density = torch.exp(-0.5 * c.square()) / (2.0 * torch.pi) ** 0.5
        h = density / torch.special.ndtr(c)
        sigma = (variance / (1.0 - c * h - h.square()).clamp(min=0.05)).sqrt()
        mu = mean + sigma * h
    return mu, sigma.square()
