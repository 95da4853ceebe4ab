"""The Laplacian of Gaussian as a particle detector, plain and weighted by the micrograph's CTF.

A disc of diameter d answers most to the LoG of sigma = d / (2 sqrt 2): Lindeberg (1998) Int. J. Comput. Vis. 30, 79.
Use for picking: Zivanov et al. (2018) eLife 7, e42166.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from vitreous.core.fourier import radius_grid


def blob_sigma(diameter: float) -> float:
    """Width of the Gaussian whose Laplacian answers most to a disc of this diameter (same unit)."""
    return diameter / (2.0 * math.sqrt(2.0))


def log_transfer(
    shape: tuple[int, int], pixel_size: float, diameter: float, *, device: torch.device | None = None
) -> Float[Tensor, "height half"]:
    """Fourier transform of -sigma^2 Laplacian of Gaussian (float64): bright discs of diameter (A) give maxima."""
    sigma = blob_sigma(diameter)
    q = (2.0 * math.pi * sigma * radius_grid(shape, pixel_size, device=device)) ** 2
    return q * torch.exp(-0.5 * q)


def log_response(
    image: Float[Tensor, "height width"],
    pixel_size: float,
    diameter: float,
    weight: Float[Tensor, "height half"] | None = None,
) -> Float[Tensor, "height width"]:
    """LoG of an image by FFT (periodic); weight: a further transfer function, e.g. CTF times low-pass.

    With the CTF as weight the filter becomes a matched one for a LoG-shaped template seen through this lens: phases
    reversed by the CTF are turned back, frequencies with no contrast are left out.
    """
    shape = (int(image.shape[0]), int(image.shape[1]))
    transfer = log_transfer(shape, pixel_size, diameter, device=image.device)
    if weight is not None:
        transfer = transfer * weight
    transformed = torch.fft.rfft2(image) * transfer.to(image.dtype)
    return torch.fft.irfft2(transformed, s=shape)


def log_response_reference(
    image: Float[np.ndarray, "height width"], pixel_size: float, diameter: float
) -> Float[np.ndarray, "height width"]:
    """`log_response` without weight as a real-space convolution in float64 (slow; what the fast path is held to)."""
    sigma = blob_sigma(diameter) / pixel_size
    radius = math.ceil(6.0 * sigma)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    q = (x * x + y * y) / (2.0 * sigma**2)
    kernel = (1.0 - q) * np.exp(-q) / (math.pi * sigma**2)
    return ndimage.convolve(image.astype(np.float64), kernel, mode="wrap")


def scale_ladder(diameter_min: float, diameter_max: float, step: float = 1.2) -> list[float]:
    """Diameters from the smallest to the largest, each at most `step` times the one before."""
    if diameter_max <= diameter_min * 1.01:
        return [0.5 * (diameter_min + diameter_max)]
    count = math.ceil(math.log(diameter_max / diameter_min) / math.log(step)) + 1
    return [float(d) for d in np.geomspace(diameter_min, diameter_max, count)]
