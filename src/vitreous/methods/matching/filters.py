"""Filters of the search: what makes the micrograph's noise white is applied to micrograph and template alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import radius_grid

NYQUIST = 0.5


@dataclass(frozen=True)
class RadialCurve:
    """values at frequencies (cycles a pixel, rising), linear between them, constant beyond both ends."""

    frequencies: NDArray[np.float64]
    values: NDArray[np.float64]

    def on_grid(self, shape: tuple[int, int]) -> Float[Tensor, "height half"]:
        """The curve over the rfft grid of an image of `shape`, float64."""
        radius = radius_grid(shape).numpy()
        return torch.from_numpy(np.interp(radius, self.frequencies, self.values))


@dataclass(frozen=True)
class Filters:
    """Which filters to use. Frequencies are in cycles a pixel.

    whiten: by the micrograph's "power" (root of the ring means of |F|^2) or "amplitude" (ring means of |F|) spectrum,
    or "" for none. n_bins: rings (0: one a Fourier pixel). max_frequency: constant beyond. low, high: band-pass cuts
    (0: none) with a Gaussian falloff. curve: an arbitrary further filter. randomise_from: phases of the micrograph are
    random beyond it (0: nowhere): what is found then is found by low frequencies, or by chance.
    """

    whiten: str = "power"
    n_bins: int = 0
    max_frequency: float = NYQUIST
    low: float = 0.0
    high: float = 0.0
    falloff: float = 0.05
    curve: RadialCurve | None = None
    randomise_from: float = 0.0


def whitening_curve(image: Float[Tensor, "height width"], filters: Filters) -> RadialCurve:
    """The reciprocal of the spectrum's ring means, scaled to a largest value of 1.

    Raises ValueError for an image without any variation.
    """
    height, width = image.shape
    spectrum = torch.fft.rfft2(image.to(torch.float64)).abs()
    if filters.whiten == "power":
        spectrum = spectrum.square()
    spectrum[0, 0] = 0.0
    weights = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    count = filters.n_bins or min(height, width) // 2
    step = filters.max_frequency / count
    weights = weights.expand_as(spectrum).clone()
    weights[0, 0] = 0.0  # the mean says nothing about the noise
    total, norm = torch.zeros(2, count + 2, dtype=torch.float64)
    position = (radius_grid((height, width)) / step).reshape(-1)
    inside = position <= count + 1e-9
    low = torch.floor(position[inside] + 1e-9)
    share = position[inside] - low
    # A coefficient between two rings counts in both, by its distance: the mean is linear in between, as the filter is.
    for ring, part in ((low, 1.0 - share), (low + 1.0, share)):
        part = part * weights.reshape(-1)[inside]
        total.index_add_(0, ring.to(torch.int64), part * spectrum.reshape(-1)[inside])
        norm.index_add_(0, ring.to(torch.int64), part)
    known = norm[: count + 1] > 1e-6
    mean = (total[: count + 1][known] / norm[: count + 1][known]).numpy()
    if not (mean > 0).any():
        raise ValueError("the image is constant")
    amplitude = np.sqrt(mean) if filters.whiten == "power" else mean
    values = 1.0 / np.maximum(amplitude, 1e-6 * amplitude.max())
    frequencies = (torch.arange(count + 1, dtype=torch.float64) * step)[known].numpy()
    return RadialCurve(frequencies, values / values.max())


def band_pass(shape: tuple[int, int], low: float, high: float, falloff: float) -> Float[Tensor, "height half"]:
    """1 between low and high (cycles a pixel; 0: no cut), Gaussian outside with sigma = falloff."""
    radius = radius_grid(shape)
    sigma = max(falloff, 1e-9)
    result = torch.ones_like(radius)
    if high > 0:
        result = result * torch.exp(-0.5 * ((radius - high).clamp(min=0.0) / sigma).square())
    if low > 0:
        result = result * torch.exp(-0.5 * ((low - radius).clamp(min=0.0) / sigma).square())
    return result


def filter_on_grid(whitening: RadialCurve | None, filters: Filters, shape: tuple[int, int]) -> Float[Tensor, "h half"]:
    """All amplitude filters together on the rfft grid of `shape`; nothing passes at zero frequency."""
    result = torch.ones(shape[0], shape[1] // 2 + 1, dtype=torch.float64)
    if whitening is not None:
        result = result * whitening.on_grid(shape)
    if filters.low > 0 or filters.high > 0:
        result = result * band_pass(shape, filters.low, filters.high, filters.falloff)
    if filters.curve is not None:
        result = result * filters.curve.on_grid(shape)
    result[0, 0] = 0.0
    return result


def randomise_phases(
    image: Float[Tensor, "height width"], beyond: float, generator: torch.Generator
) -> Float[Tensor, "height width"]:
    """The image with random phases beyond a frequency (cycles a pixel); amplitudes stay."""
    shape = (image.shape[0], image.shape[1])
    image_ft = torch.fft.rfft2(image.to(torch.float64))
    # Phases of real white noise: the Hermitian symmetry on the edges of the half transform comes with them.
    noise_ft = torch.fft.rfft2(torch.randn(shape, generator=generator, dtype=torch.float64))
    random = image_ft.abs() * torch.polar(torch.ones_like(noise_ft.real), noise_ft.angle())
    return torch.fft.irfft2(torch.where(radius_grid(shape) > beyond, random, image_ft), s=shape)


@dataclass(frozen=True)
class Prepared:
    """A filtered image of mean 0 and variance 1, and the whitening curve it gave (for the templates)."""

    image: Float[Tensor, "height width"]
    whitening: RadialCurve | None


def prepare_micrograph(
    image: Float[Tensor, "height width"], filters: Filters, generator: torch.Generator | None = None
) -> Prepared:
    """Whiten and filter a micrograph, float64. Raises ValueError where nothing is left of it."""
    pixels = image.to(torch.float64)
    pixels = pixels - pixels.mean()
    if filters.randomise_from > 0:
        chosen = generator if generator is not None else torch.Generator().manual_seed(1)
        pixels = randomise_phases(pixels, filters.randomise_from, chosen)
    whitening = whitening_curve(pixels, filters) if filters.whiten else None
    shape = (image.shape[0], image.shape[1])
    filtered = torch.fft.irfft2(torch.fft.rfft2(pixels) * filter_on_grid(whitening, filters, shape), s=shape)
    deviation = float(filtered.std(correction=0))
    if not deviation > 0:
        raise ValueError("nothing passes the filters")
    return Prepared(filtered / deviation, whitening)
