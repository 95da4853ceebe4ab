"""What a class average shows: contrast, flatness of the background, size, place, detail.

Averages come from a classification that masks them to a circle of the particle diameter, so all is measured within
that circle; its outer ring is where the background of a good average lies flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from vitreous.core.fourier import shell_sum, to_fourier
from vitreous.core.masks import distance_grid

# Ring of the circle that is taken for background, in units of its radius.
_RING = (0.80, 0.97)


@dataclass(frozen=True)
class ClassFeatures:
    """Measures of K class averages, each field (K,) but diameter (A), that of the mask.

    share: of the particles. resolution: A, as the classification estimates it. contrast: spread of grey values
    within the circle. roughness: spread of the ring along its circumference, over the particle's height above it.
    offset: distance of the density's centre from the middle, over the circle's radius. extent: diameter of a disc
    with the area of the density, over the circle's. wholeness: largest piece's share of the density. detail: power
    beyond a third of the diameter, over all power in the circle.
    """

    share: Float[np.ndarray, "k"]
    resolution: Float[np.ndarray, "k"]
    contrast: Float[np.ndarray, "k"]
    roughness: Float[np.ndarray, "k"]
    offset: Float[np.ndarray, "k"]
    extent: Float[np.ndarray, "k"]
    wholeness: Float[np.ndarray, "k"]
    detail: Float[np.ndarray, "k"]
    diameter: float

    def __len__(self) -> int:
        return len(self.share)


def measure_classes(
    averages: Float[np.ndarray, "k box box"],
    pixel_size: float,
    diameter: float,
    share: Float[np.ndarray, "k"],
    resolution: Float[np.ndarray, "k"],
) -> ClassFeatures:
    """Measure averages (protein white) of pixel_size (A) masked to diameter (A)."""
    box = averages.shape[-1]
    radius = min(0.5 * diameter / pixel_size, 0.5 * box - 1.0)
    distance = distance_grid(box, 2, dtype=torch.float64).numpy()
    inside = distance <= radius
    ring = (distance >= _RING[0] * radius) & (distance <= _RING[1] * radius)
    images = averages.astype(np.float64)
    background = np.median(images[:, ring], axis=1)
    ring_spread = _angular_spread(images[:, ring], np.round(2.0 * distance[ring]).astype(np.int64))
    level = np.quantile(images[:, inside], 0.90, axis=1) - background
    shapes = [_shape(image, inside, distance, radius) for image in images]
    offset, extent, wholeness = (np.array(values) for values in zip(*shapes, strict=True))
    tiny = 1e-12 + 1e-9 * np.abs(images).max()
    return ClassFeatures(
        share=np.asarray(share, dtype=np.float64),
        resolution=np.asarray(resolution, dtype=np.float64),
        contrast=images[:, inside].std(axis=1),
        roughness=ring_spread / np.maximum(level, tiny),
        offset=offset,
        extent=extent,
        wholeness=wholeness,
        detail=_detail(images, inside, pixel_size, diameter),
        diameter=diameter,
    )


def _angular_spread(values: Float[np.ndarray, "k n"], radii: Int[np.ndarray, "n"]) -> Float[np.ndarray, "k"]:
    """Spread of the ring's grey values about their mean at each radius: a round particle's edge is no unevenness."""
    _, place = np.unique(radii, return_inverse=True)
    membership = np.eye(int(place.max()) + 1)[place]  # (n, radii)
    means = values @ membership / membership.sum(axis=0)
    return np.sqrt(np.mean((values - means[:, place]) ** 2, axis=1))


def _shape(
    image: Float[np.ndarray, "box box"], inside: Bool[np.ndarray, "box box"], distance: np.ndarray, radius: float
) -> tuple[float, float, float]:
    """Offset, extent and wholeness of what lies above half-way between the background and the bright tenth."""
    values = image[inside]
    low, high = np.quantile(values, 0.15), np.quantile(values, 0.95)
    solid = inside & (image > low + 0.4 * (high - low))
    if high <= low or not solid.any():
        return 0.0, 0.0, 0.0
    labels, count = ndimage.label(solid)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    # The centre is weighed by density: a faint arm does not move it much.
    weight = np.where(solid, image - low, 0.0)
    middle = image.shape[-1] // 2
    rows, columns = np.indices(image.shape) - middle
    centre = np.array([(weight * rows).sum(), (weight * columns).sum()]) / weight.sum()
    extent = np.sqrt(solid.sum() / np.pi) / radius
    return float(np.hypot(*centre)) / radius, float(extent), float(sizes.max() / sizes.sum())


def _detail(
    images: Float[np.ndarray, "k box box"], inside: Bool[np.ndarray, "box box"], pixel_size: float, diameter: float
) -> Float[np.ndarray, "k"]:
    """Share of the power beyond a third of the diameter."""
    box = images.shape[-1]
    level = images[:, inside].mean(axis=1)[:, None, None]
    centred = torch.from_numpy(np.where(inside, images - level, 0.0))
    power = shell_sum(to_fourier(centred).abs().square(), box).numpy()
    first = max(2, round(3.0 * box * pixel_size / diameter))
    return power[:, first:].sum(axis=1) / np.maximum(power[:, 1:].sum(axis=1), 1e-30)
