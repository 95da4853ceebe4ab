"""Even out a micrograph and find what is no ice: crystals, carbon, dirt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage


@dataclass(frozen=True)
class EvenMicrograph:
    """A micrograph with its background taken off, local spread 1, and zero where it is contaminated."""

    image: Float[np.ndarray, "height width"]
    contaminated: Bool[np.ndarray, "height width"]


def robust_spread(values: Float[np.ndarray, "*n"]) -> float:
    """Standard deviation from the median absolute deviation, blind to outliers."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def fit_illumination(image: Float[np.ndarray, "height width"], rounds: int = 6) -> Float[np.ndarray, "height width"]:
    """A quadratic surface under the micrograph, by iteratively reweighted least squares (Tukey's biweight).

    Large contaminants pull a plain fit; here pixels far from the surface lose their say.
    """
    height, width = image.shape
    step = max(1, min(height, width) // 64)
    y, x = np.mgrid[0:height:step, 0:width:step]
    coarse = ndimage.uniform_filter(image, step)[::step, ::step].ravel()
    design = _quadratic(y.ravel() / height - 0.5, x.ravel() / width - 0.5)
    weights = np.ones_like(coarse)
    coefficients = np.zeros(design.shape[1])
    for _ in range(rounds):
        root = np.sqrt(weights)
        coefficients = np.linalg.lstsq(design * root[:, None], coarse * root, rcond=None)[0]
        residual = coarse - design @ coefficients
        cut = 4.685 * max(robust_spread(residual), 1e-12)
        weights = np.clip(1.0 - (residual / cut) ** 2, 0.0, None) ** 2
    rows, columns = np.arange(height) / height - 0.5, np.arange(width) / width - 0.5
    full = _quadratic(np.repeat(rows, width), np.tile(columns, height))
    return (full @ coefficients).reshape(height, width)


def _quadratic(y: Float[np.ndarray, "n"], x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 6"]:
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def find_contamination(
    image: Float[np.ndarray, "height width"], diameter_px: float, *, limit: float = 6.0
) -> Bool[np.ndarray, "height width"]:
    """Regions larger than particles that are too dark, too bright or too rough, grown by half a diameter.

    image: illumination taken off. diameter_px: of the largest particle. limit: robust deviations of the local mean
    and of the log of the local spread at which a region counts as contaminated.
    """
    level = ndimage.gaussian_filter(image, 0.6 * diameter_px, mode="reflect")
    level_spread = robust_spread(level)
    rough = ndimage.gaussian_filter((image - level) ** 2, 0.5 * diameter_px, mode="reflect")
    rough = 0.5 * np.log(np.maximum(rough, 1e-30))
    rough_spread = max(robust_spread(rough), 0.03)
    bad = np.abs(level - np.median(level)) > limit * level_spread
    bad |= rough - np.median(rough) > limit * rough_spread
    bad = ndimage.binary_opening(bad, iterations=max(1, int(0.25 * diameter_px)))
    labels, count = ndimage.label(bad)
    if count:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        # A lone strong particle, blurred by the averages above, covers a disc of about its own diameter in radius.
        bad = (sizes > np.pi * (1.2 * diameter_px) ** 2)[labels]
    if not bad.any():
        return bad
    return ndimage.distance_transform_edt(~bad) <= 0.5 * diameter_px


def even_out(
    image: Float[np.ndarray, "height width"], diameter_px: float, *, exclude_contamination: bool = True
) -> EvenMicrograph:
    """Take the background off, bring the local spread to 1, blank what is contaminated.

    diameter_px: of the largest particle; background and spread are averages over a few diameters, taken over clean
    pixels only (normalised convolution), so that a crystal leaves no bright rim around itself.
    """
    flat = image - fit_illumination(image)
    bad = find_contamination(flat, diameter_px) if exclude_contamination else np.zeros(image.shape, dtype=bool)
    good = (~bad).astype(np.float64)
    width = 1.5 * diameter_px
    share = np.maximum(ndimage.gaussian_filter(good, width, mode="reflect"), 1e-6)
    level = ndimage.gaussian_filter(flat * good, width, mode="reflect") / share
    flat = (flat - level) * good
    width *= 1.5
    share = np.maximum(ndimage.gaussian_filter(good, width, mode="reflect"), 1e-6)
    variance = ndimage.gaussian_filter(flat**2, width, mode="reflect") / share
    typical = np.median(variance[~bad]) if good.any() else 1.0
    # Nearly empty corners must not be blown up to the level of a full field.
    spread = np.sqrt(np.maximum(variance, 0.1 * typical))
    return EvenMicrograph(np.where(bad, 0.0, flat / np.maximum(spread, 1e-30)), bad)
