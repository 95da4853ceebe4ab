"""A gain reference from the movies themselves: the pattern that stays when the specimen changes.

The mean of many movies is the illumination times each pixel's gain. Movies are shared out between two halves, whose
agreement tells the pattern from the noise of counting, without a model of the camera; what is known badly is shrunk
towards one (James and Stein).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
_NEIGHBOURHOOD = 33  # px: gain is held against the mean of this square, illumination is smoother
_DEAD = 0.1  # of the mean around: a pixel that counts less is dead
_HOT = 3.0  # times the mean around: a pixel that counts more is no pixel
_SIGNIFICANT = 6.0  # standard errors of the halves' covariance
_SMALLEST_SPREAD = 2e-3  # relative: less than this is not worth a multiplication


@dataclass(frozen=True)
class GainEstimate:
    """gain (y, x): factors for the frames, 0 for dead and hot pixels, mean 1.

    spread: standard deviation of the gain between pixels; uncertainty: its standard error in each. Both relative.
    """

    gain: Float[np.ndarray, "height width"]
    spread: float
    uncertainty: float


def estimate_gain(sums: Iterable[Float[np.ndarray, "height width"]], shape: tuple[int, int]) -> GainEstimate | None:
    """The gain from sums of the frames of different movies, or None where they share no pattern (or are under two)."""
    halves = [np.zeros(shape), np.zeros(shape)]
    count = 0
    for total in sums:
        halves[count % 2] += total
        count += 1
    whole = halves[0] + halves[1]
    if count < 2 or min(float(half.mean()) for half in halves) <= 0:
        return None
    bad = (around := _around(whole, np.ones(shape, dtype=bool))) <= 0
    bad |= (whole < _DEAD * around) | (whole > _HOT * around)
    first, second = (half / np.maximum(_around(half, ~bad), 1e-12) - 1.0 for half in halves)
    deviation = whole / np.maximum(_around(whole, ~bad), 1e-12) - 1.0
    covariance = float((first * second)[~bad].mean())
    variance = 0.5 * float((first**2 + second**2)[~bad].mean())
    if covariance < _SIGNIFICANT * variance / np.sqrt((~bad).sum()) or covariance < _SMALLEST_SPREAD**2:
        return None
    noise = 0.5 * max(variance - covariance, 0.0)  # of the mean of both halves
    shrink = covariance / (covariance + noise)
    gain = np.where(bad, 0.0, 1.0 / np.maximum(1.0 + shrink * deviation, _DEAD))
    gain /= gain[~bad].mean()
    return GainEstimate(gain.astype(np.float32), float(np.sqrt(covariance)), float(np.sqrt(shrink * noise)))


def _around(image: Array, good: NDArray[np.bool_]) -> Array:
    """Mean of the good pixels in the square around each pixel."""
    weight = ndimage.uniform_filter(good.astype(np.float64), _NEIGHBOURHOOD, mode="reflect")
    total = ndimage.uniform_filter(np.where(good, image, 0.0), _NEIGHBOURHOOD, mode="reflect")
    return total / np.maximum(weight, 1e-6)
