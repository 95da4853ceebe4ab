"""Middle and spread of values of which some are something else."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.special import ndtri


def robust_spread(values: Float[np.ndarray, "*n"]) -> float:
    """Standard deviation from the median absolute deviation, blind to outliers."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def densest_part(values: Float[np.ndarray, "*n"], share: float = 0.3) -> tuple[float, float]:
    """Middle and standard deviation by the shortest interval that holds a share of the values (after Rousseeuw 1984).

    The median and what is made of it bend towards contamination that lies on one side, as carbon does; this does not,
    as long as what is clean is what most pixels agree on. Exact for a normal law.
    """
    ordered = np.sort(values, axis=None)
    count = max(1, int(share * len(ordered)))
    widths = ordered[count:] - ordered[:-count]
    first = int(np.argmin(widths))
    middle = 0.5 * float(ordered[first] + ordered[first + count])
    return middle, float(widths[first]) / (2.0 * float(ndtri(0.5 + 0.5 * share)))


def mean_around(
    values: Float[np.ndarray, "height width"],
    trusted: Bool[np.ndarray, "height width"],
    width: float,
    *,
    prior: float = 0.0,
) -> Float[np.ndarray, "height width"]:
    """Mean of the trusted values about each pixel, by a Gaussian of `width` pixels (normalised convolution).

    prior: weight of a zero that is averaged in, as a share of the Gaussian's: what holds where hardly any is trusted.
    """
    weight = trusted.astype(np.float64)
    share = np.maximum(ndimage.gaussian_filter(weight, width, mode="reflect") + prior, 1e-6)
    return np.asarray(ndimage.gaussian_filter(values * weight, width, mode="reflect") / share)
