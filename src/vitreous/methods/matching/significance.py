"""How likely a peak is to be chance: the threshold for a number of false positives, and p-values of peaks."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import special

_LEAST_MAXIMA = 300  # of which three make the highest hundredth
_RARE = 0.1  # false positives a micrograph: what lies above is a molecule


def detection_threshold(n_pixels: float, n_correlations: float, false_positives: float = 1.0) -> float:
    """z above which `false_positives` of n_pixels * n_correlations normal deviates are expected.

    sqrt(2) erfcinv(2 FP / N). Rickgauer, Grigorieff and Denk (2017) eLife 6, e25648. Neighbouring pixels and
    orientations are correlated, so that the true number is somewhat smaller.
    """
    total = n_pixels * n_correlations
    if not 0 < 2.0 * false_positives < 2.0 * total:
        raise ValueError(f"{false_positives} false positives among {total:g} correlations make no threshold")
    return math.sqrt(2.0) * float(special.erfcinv(2.0 * false_positives / total))


def expected_false_positives(threshold: float, n_pixels: float, n_correlations: float) -> float:
    """The inverse of `detection_threshold`."""
    return 0.5 * n_pixels * n_correlations * float(special.erfc(threshold / math.sqrt(2.0)))


def calibrated_threshold(
    scores: Float[np.ndarray, "n"], n_pixels: float, n_correlations: float, false_positives: float = 1.0
) -> float:
    """z above which `false_positives` of the map's local maxima are expected by how its noise itself falls off.

    scores: of all local maxima of a z-score map. Similar templates and neighbouring pixels are no independent trials:
    `detection_threshold` is too high. The number of maxima of noise above z falls as exp(a - b z^2); a and b are fitted
    between the highest tenth and hundredth of the maxima, after taking off what noise reaches once in ten micrographs
    (molecules), until that changes no more. Never above `detection_threshold`; equal to it below 300 maxima.
    """
    bound = detection_threshold(n_pixels, n_correlations, false_positives)
    falling = np.sort(scores)[::-1]
    ceiling, before = detection_threshold(n_pixels, n_correlations, _RARE), math.inf
    slope = level = 0.0
    while before - ceiling > 1e-3:
        noise = falling[falling <= ceiling]
        if len(noise) < _LEAST_MAXIMA:
            return bound
        ranks = np.unique(np.geomspace(0.01 * len(noise), 0.1 * len(noise), 20).astype(np.int64))
        slope, level = np.polyfit(noise[ranks - 1] ** 2, np.log(ranks), 1, w=np.sqrt(ranks))
        if slope >= 0:
            return bound
        before, ceiling = ceiling, min(ceiling, _falls_to(_RARE, slope, level))
    return min(bound, _falls_to(false_positives, slope, level))


def _falls_to(count: float, slope: float, level: float) -> float:
    return math.sqrt(max(0.0, (math.log(count) - level) / slope))


def joint_p_values(mip: Float[np.ndarray, "n"], scaled_mip: Float[np.ndarray, "n"]) -> NDArray[np.float64]:
    """Of n local maxima, most of them noise: the chance of a maximum at least as high in both measures.

    Both are made normal by their ranks; their correlation is that of the bulk; the p-value is the probability of the
    quadrant above. Only points above the median in both can be low. Zhang, Cossio, Rangan, Lucas and Grigorieff (2024)
    bioRxiv 2024.10.01.616095. The least possible p-value falls with n: a rank knows no more.
    """
    n = len(mip)
    if n < 3:
        return np.ones(n)
    from scipy import stats  # more than half a second, which ranks need not wait for when they start

    first, second = (special.ndtri((stats.rankdata(one) - 0.5) / n) for one in (mip, scaled_mip))
    correlation = float(np.clip(np.corrcoef(first, second)[0, 1], -0.9999, 0.9999))
    law = stats.multivariate_normal([0.0, 0.0], [[1.0, correlation], [correlation, 1.0]])
    p = np.atleast_1d(law.cdf(-np.column_stack([first, second])))
    return np.where((first > 0) & (second > 0), p, 1.0)
