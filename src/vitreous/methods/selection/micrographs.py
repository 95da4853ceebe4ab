"""Which micrographs to keep: limits on what is known of each, and outliers among all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_ROBUST = 1.4826  # median absolute deviation of a Gaussian in standard deviations
_FEWEST = 8  # micrographs below which nothing is called an outlier


@dataclass(frozen=True)
class Quantity:
    """Something known of each micrograph. words, unit: for reasons and plots. bad: which side of the others is bad."""

    name: str
    words: str
    unit: str
    bad: str  # "high", "low" or "both"


@dataclass(frozen=True)
class Limits:
    """Least and greatest value that is kept (infinite: none)."""

    low: float = -np.inf
    high: float = np.inf

    @property
    def are_set(self) -> bool:
        """Whether anything can fail them."""
        return np.isfinite(self.low) or np.isfinite(self.high)

    def narrowed(self, other: Limits) -> Limits:
        """Both at once."""
        return Limits(max(self.low, other.low), min(self.high, other.high))


def outlier_limits(values: Array, quantity: Quantity, sigmas: float) -> Limits:
    """Median and robust standard deviations, on the side that is bad; none where there are too few micrographs.

    Quantities that cannot be negative are looked at as logarithms, where a bad tail is no rule (Leys et al. (2013)
    J. Exp. Soc. Psychol. 49, 764 for the median absolute deviation).
    """
    known = values[np.isfinite(values)]
    if len(known) < _FEWEST:
        return Limits()
    logarithmic = bool((known > 0).all())
    scale = np.log(known) if logarithmic else known
    middle = float(np.median(scale))
    spread = _ROBUST * float(np.median(np.abs(scale - middle)))
    if spread == 0:
        return Limits()
    low, high = middle - sigmas * spread, middle + sigmas * spread
    if logarithmic:
        low, high = float(np.exp(low)), float(np.exp(high))
    return Limits(
        low if quantity.bad in ("low", "both") else -np.inf, high if quantity.bad in ("high", "both") else np.inf
    )


def judge_micrographs(
    values: Mapping[str, Array], quantities: Sequence[Quantity], limits: Mapping[str, Limits]
) -> list[str]:
    """Why each micrograph is not kept ("" where it is): every limit it fails, in words.

    values: by name of quantity, (n,). What is not known of a micrograph (NaN) fails a limit that is set.
    """
    n = len(next(iter(values.values())))
    reasons: list[list[str]] = [[] for _ in range(n)]
    for quantity in quantities:
        limit = limits.get(quantity.name, Limits())
        if not limit.are_set:
            continue
        for index, value in enumerate(values[quantity.name]):
            failure = _failure(float(value), quantity, limit)
            if failure:
                reasons[index].append(failure)
    return ["; ".join(one) for one in reasons]


def _failure(value: float, quantity: Quantity, limit: Limits) -> str:
    unit = f" {quantity.unit}" if quantity.unit else ""
    if np.isnan(value):
        return f"{quantity.words} is not known"
    if value < limit.low:
        return f"{quantity.words} {value:.5g}{unit} is below {limit.low:.5g}"
    if value > limit.high:
        return f"{quantity.words} {value:.5g}{unit} is above {limit.high:.5g}"
    return ""
