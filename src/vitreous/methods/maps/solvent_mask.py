"""Solvent masks: threshold, clean, extend, soften."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.core.masks import distance_grid


@dataclass(frozen=True)
class SolventMask:
    """A soft mask (1 in the particle, 0 in the solvent) with how it was made.

    threshold: density at which the low-passed map was cut. fraction: share of the box inside (sum of the mask).
    """

    mask: Float[Tensor, "box box box"]
    threshold: float
    fraction: float


def lowpass_map(density: Float[Tensor, "box box box"], voxel_size: float, resolution: float) -> Tensor:
    """Low-pass a map to resolution (A) with a soft edge of two Fourier pixels."""
    shape = tuple(density.shape)
    filtered = to_fourier(density, 3) * lowpass(shape, voxel_size, resolution, device=density.device).to(density.dtype)
    return to_real(filtered, shape, 3)


def automatic_threshold(density: Float[Tensor, "box box box"], radius_px: float | None = None) -> float:
    """A density that parts particle from solvent in a low-passed map.

    The solvent is what lies outside the sphere of radius_px (default: nearly the inscribed one); the particle is
    found by Otsu's criterion over the voxels that stand out of that noise. The threshold is half-way between the
    solvent's mean and the particle's median level, but never within four standard deviations of the solvent: on a
    map with no particle it lies above all of the noise's bulk.
    Otsu (1979) IEEE Trans. Syst. Man Cybern. 9, 62.
    """
    box = density.shape[-1]
    distance = distance_grid(box, 3, device=density.device)
    radius = radius_px if radius_px is not None else 0.48 * box
    outside = density[distance > min(radius, 0.5 * box)]
    inside = density[distance <= radius].flatten()
    level, spread = outside.mean(), outside.std()
    floor = level + 4.0 * spread
    standing_out = inside[inside > floor]
    if standing_out.numel() < 8:
        return float(floor)
    particle = standing_out[standing_out >= _otsu(standing_out)]
    # A quarter of the way up: at half height an edge blurred by the low-pass would cut into the density.
    return float(torch.maximum(floor, level + 0.25 * (particle.median() - level)))


def _otsu(values: Float[Tensor, "n"]) -> float:
    """The cut that maximises the variance between the two sides, over a histogram of 256 bins."""
    histogram, edges = np.histogram(values.cpu().numpy(), bins=256)
    centres = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(histogram).astype(np.float64)
    above = below[-1] - below
    sum_below = np.cumsum(histogram * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        separation = below * above * (sum_below / below - (sum_below[-1] - sum_below) / above) ** 2
    return float(edges[1:][np.nanargmax(separation[:-1])])


def make_mask(
    density: Float[Tensor, "box box box"],
    voxel_size: float,
    *,
    threshold: float | None = None,
    lowpass_resolution: float | None = 15.0,
    extend: float = 3.0,
    edge: float = 6.0,
    keep_islands_above: float = 0.02,
    fill_holes: bool = False,
) -> SolventMask:
    """Make a soft solvent mask from a map.

    threshold: on the low-passed map (None: `automatic_threshold`). extend, edge: voxels by which the cut is grown
    and then falls to 0 along a raised cosine. keep_islands_above: pieces smaller than this share of the largest
    are dropped as noise. fill_holes: close cavities (a hollow shell becomes a ball).
    Raises ValueError if nothing lies above the threshold.
    """
    smooth = density if lowpass_resolution is None else lowpass_map(density, voxel_size, lowpass_resolution)
    cut = automatic_threshold(smooth) if threshold is None else threshold
    solid = (smooth > cut).cpu().numpy()
    if not solid.any():
        raise ValueError(f"no voxel lies above the threshold {cut:.4g} (largest value {float(smooth.max()):.4g})")
    solid = drop_islands(solid, keep_islands_above)
    if fill_holes:
        solid = ndimage.binary_fill_holes(solid)
    mask = torch.from_numpy(soften(solid, extend, edge)).to(density.device)
    return SolventMask(mask, cut, float(mask.mean()))


def drop_islands(solid: Bool[np.ndarray, "box box box"], keep_above: float) -> Bool[np.ndarray, "box box box"]:
    """Remove connected pieces smaller than keep_above times the largest one."""
    labels, count = ndimage.label(solid)
    if count < 2 or keep_above <= 0:
        return solid
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= keep_above * sizes.max())[labels]


def soften(solid: Bool[np.ndarray, "box box box"], extend: float, edge: float) -> Float[np.ndarray, "box box box"]:
    """Grow the solid by what lies nearer than `extend` voxels, then a raised cosine of `edge` voxels to 0 (float32).

    The edge starts from the grown solid's voxels, as in `relion_mask_create`.
    """
    grown = ndimage.distance_transform_edt(~solid) < extend if extend > 0 else solid
    distance = ndimage.distance_transform_edt(~grown)
    ramp = np.clip(distance / max(edge, 1e-6), 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * ramp)).astype(np.float32)
