"""Which average of one classification is the like of which of another: correlation at the best rotation and shift."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.core.masks import soft_sphere
from vitreous.kernels.project import prepare_images, project_2d

_STEP = 3.0  # degrees


def twin_correlations(
    wanted: Float[np.ndarray, "k box box"],
    others: Float[np.ndarray, "m box box"],
    *,
    pixel_size: float,
    diameter: float,
    resolution: float,
) -> Float[np.ndarray, "k m"]:
    """Greatest normalised correlation of each wanted average with each other one and its mirror image.

    Both are low-passed to `resolution` (A) and masked to `diameter` (A); a cage seen from below is one seen from above.
    """
    box = wanted.shape[-1]
    mask = soft_sphere(box, 0.5 * diameter / pixel_size, edge=3.0, dtype=torch.float64)
    low = lowpass((box, box), pixel_size, resolution)

    def smoothed(images: np.ndarray) -> Tensor:
        values = to_real(to_fourier(torch.from_numpy(images.astype(np.float64))) * low, (box, box))
        values = values - (values * mask).sum((-2, -1), keepdim=True) / mask.sum()
        return values * mask

    targets = to_fourier(smoothed(wanted))
    targets = targets / _norm(targets, box)[:, None, None]
    candidates = smoothed(others)
    best = np.full((len(wanted), len(others)), -1.0)
    angles = torch.arange(0.0, 360.0, _STEP, dtype=torch.float64)
    for images in (candidates, candidates.flip(-1)):
        prepared = prepare_images(images, dtype=torch.float64)
        axis = torch.fft.fftfreq(box, 1.0 / box, dtype=torch.float64)
        coordinates = torch.cartesian_prod(axis, torch.arange(box // 2 + 1, dtype=torch.float64))
        turned = project_2d(prepared, angles, coordinates).unflatten(-1, (box, box // 2 + 1))
        turned = turned / _norm(turned, box)[..., None, None]
        for k, target in enumerate(targets):
            found = to_real(target * turned.conj(), (box, box)) * box * box
            best[k] = np.maximum(best[k], found.amax((1, 2, 3)).numpy())
    return best


def _norm(images_ft: Tensor, box: int) -> Tensor:
    """Root of the summed squares of an image, from its transform."""
    return (to_real(images_ft, (box, box)).square().sum((-2, -1)).sqrt() * box).clamp(min=1e-30)
