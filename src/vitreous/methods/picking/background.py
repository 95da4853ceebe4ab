"""Even out a micrograph and find what is no ice: crystals, carbon, dirt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from vitreous.methods.picking.lumps import find_lumps
from vitreous.methods.picking.robust import densest_part, mean_around, robust_spread

_USUAL = 5.0  # robust deviations within which pixels of ice and protein lie
# In robust deviations of the micrograph smoothed to an eighth of the diameter: simulated ferritin has 5 to 7, gold 14.
_PEAK, _BEAD_LIMIT, _BEAD_RATIO = 3.0, 10.0, 2.0


@dataclass(frozen=True)
class EvenMicrograph:
    """A micrograph with its background taken off, local spread 1, and zero where it is contaminated."""

    image: Float[np.ndarray, "height width"]
    contaminated: Bool[np.ndarray, "height width"]


def fit_illumination(
    image: Float[np.ndarray, "height width"],
    trusted: Bool[np.ndarray, "height width"] | None = None,
    rounds: int = 6,
) -> Float[np.ndarray, "height width"]:
    """A quadratic surface under the micrograph, by iteratively reweighted least squares (Tukey's biweight).

    Large contaminants pull a plain fit; here pixels far from the surface lose their say. trusted: where to start from
    (None: everywhere).
    """
    height, width = image.shape
    # Where there is something to keep off, noise in the cells must be small beside the step to carbon.
    step = max(1, min(height, width) // (64 if trusted is None else 20))
    y, x = np.mgrid[0:height:step, 0:width:step]
    coarse = ndimage.uniform_filter(image, step)[::step, ::step].ravel()
    design = _quadratic(y.ravel() / height - 0.5, x.ravel() / width - 0.5)
    start = np.ones(len(coarse), dtype=bool) if trusted is None else trusted[::step, ::step].ravel()
    weights = start.astype(np.float64)
    coefficients = np.zeros(design.shape[1])
    for _ in range(rounds):
        root = np.sqrt(weights)
        coefficients = np.linalg.lstsq(design * root[:, None], coarse * root, rcond=None)[0]
        residual = coarse - design @ coefficients
        cut = 4.685 * max(robust_spread(residual[start]), 1e-12)
        weights = np.clip(1.0 - (residual / cut) ** 2, 0.0, None) ** 2
    rows, columns = np.arange(height) / height - 0.5, np.arange(width) / width - 0.5
    full = _quadratic(np.repeat(rows, width), np.tile(columns, height))
    return (full @ coefficients).reshape(height, width)


def agreeing(image: Float[np.ndarray, "height width"], trials: int = 500) -> Bool[np.ndarray, "height width"]:
    """Pixels whose surroundings lie on the plane that most of the field lies on: neither carbon nor large ice.

    The plane is the one, of many through three places, from which half of the field deviates least (Rousseeuw 1984):
    up to half of the field may be something else. Means over a twentieth of the field: noise in them is small beside
    the step to carbon.
    """
    step = max(1, min(image.shape) // 20)
    level = ndimage.uniform_filter(image, step)
    y, x = np.mgrid[step // 2 : image.shape[0] : step, step // 2 : image.shape[1] : step]
    cells = level[y, x].ravel()
    design = np.stack([np.ones(y.size), y.ravel() / image.shape[0], x.ravel() / image.shape[1]], axis=1)
    chosen = np.random.default_rng(0).integers(0, len(cells), (trials, 3))
    matrices = design[chosen]
    far = np.abs(np.linalg.det(matrices)) > 0.05  # three places in a line, or close together, say little
    planes = np.linalg.solve(matrices[far], cells[chosen[far]][..., None])[..., 0]
    deviations = np.median(np.abs(cells - planes @ design.T), axis=1)
    plane = planes[np.argmin(deviations)]
    rows, columns = (np.arange(n) / n for n in image.shape)
    rest = level - (plane[0] + plane[1] * rows[:, None] + plane[2] * columns)
    middle, spread = densest_part(rest)
    return np.asarray(np.abs(rest - middle) <= 3.0 * spread)


def _quadratic(y: Float[np.ndarray, "n"], x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 6"]:
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def find_contamination(
    image: Float[np.ndarray, "height width"], diameter_px: float, *, limit: float = 6.0
) -> Bool[np.ndarray, "height width"]:
    """Gold, and regions larger than particles that are too dark, too bright or too rough, grown by half a diameter.

    image: illumination taken off. diameter_px: of the largest particle. limit: robust deviations of the local mean
    and of the log of the local spread at which a region counts as contaminated.
    """
    beads = _find_beads(image, diameter_px)
    middle, spread = densest_part(image)
    # Beads would make their whole surroundings look rough and dark.
    image = np.clip(image, middle - _USUAL * spread, middle + _USUAL * spread)
    level = ndimage.gaussian_filter(image, 0.6 * diameter_px, mode="reflect")
    usual, level_spread = densest_part(level)
    rough = ndimage.gaussian_filter((image - level) ** 2, 0.5 * diameter_px, mode="reflect")
    rough = 0.5 * np.log(np.maximum(rough, 1e-30))
    usual_rough, rough_spread = densest_part(rough)
    bad = np.abs(level - usual) > limit * level_spread
    bad |= rough - usual_rough > limit * max(rough_spread, 0.03)
    bad = ndimage.binary_opening(bad, iterations=max(1, int(0.25 * diameter_px)))
    labels, count = ndimage.label(bad)
    if count:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        # A lone strong particle, blurred by the averages above, covers a disc of about its own diameter in radius.
        bad = (sizes > np.pi * (1.2 * diameter_px) ** 2)[labels]
    bad |= beads
    if not bad.any():
        return bad
    return ndimage.distance_transform_edt(~bad) <= 0.5 * diameter_px


def _find_beads(image: Float[np.ndarray, "height width"], diameter_px: float) -> Bool[np.ndarray, "height width"]:
    """Pixels that stand out far more than the strongest places of most particles do, whatever their size."""
    core = ndimage.gaussian_filter(image, 0.125 * diameter_px, mode="reflect")
    middle, spread = densest_part(core)
    outstanding = np.abs(core - middle) / max(spread, 1e-30)
    highest = ndimage.maximum_filter(outstanding, size=max(3, round(diameter_px)), mode="nearest")
    peaks = outstanding[(outstanding == highest) & (outstanding > _PEAK)]
    usual = float(np.median(peaks)) if len(peaks) else 0.0
    return np.asarray(outstanding > max(_BEAD_LIMIT, _BEAD_RATIO * usual))


def even_out(
    image: Float[np.ndarray, "height width"], diameter_px: float, *, exclude_contamination: bool = True
) -> EvenMicrograph:
    """Take the background off, bring the local spread to 1, blank what is contaminated.

    diameter_px: of the largest particle; background and spread are averages over a few diameters, taken over clean
    pixels only (normalised convolution), so that a crystal leaves no bright rim around itself.
    """
    bad = np.zeros(image.shape, dtype=bool)
    if exclude_contamination:
        bad = find_contamination(image - fit_illumination(image, agreeing(image)), diameter_px)
    flat = image - fit_illumination(image)
    if bad.any() and not bad.all():
        # What was found no longer bends the surface that it was found by.
        flat = image - fit_illumination(image, ~bad)
        bad = find_contamination(flat, diameter_px)
    if exclude_contamination and not bad.all():
        lumps = find_lumps(flat, ~bad, diameter_px)
        if lumps.any():
            bad |= lumps
            flat = image - fit_illumination(image, ~bad)
    good, width = ~bad, 1.5 * diameter_px
    flat = (flat - mean_around(flat, good, width)) * good
    variance = mean_around(flat**2, good, 1.5 * width)
    typical = np.median(variance[good]) if good.any() else 1.0
    # Nearly empty corners must not be blown up to the level of a full field.
    spread = np.sqrt(np.maximum(variance, 0.1 * typical))
    return EvenMicrograph(np.where(bad, 0.0, flat / np.maximum(spread, 1e-30)), bad)
