"""Pixel size and B factor of a template, from molecules that have been found: the highest mean correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.methods.matching.local import Field, Place, window_correlations


@dataclass(frozen=True)
class Curve:
    """Mean of the molecules' highest correlations at each trial; best: the vertex of a parabola through the top."""

    trials: NDArray[np.float64]
    means: NDArray[np.float64]
    best: float


def mean_correlation(
    fields: Sequence[tuple[Field, Sequence[Place]]], scale: float, b_factor: float | None, reach: int = 2
) -> float:
    """Mean over all places of the highest correlation within `reach` pixels."""
    values = []
    for field, places in fields:
        for place in places:
            maker = field.maker(torch.tensor([place.defocus]), scale, b_factor)
            found, _ = window_correlations(field.image, maker, place.position, place.angles[None], reach)
            values.append(float(found.max()))
    return float(np.mean(values))


def scan_scale(
    fields: Sequence[tuple[Field, Sequence[Place]]], scales: NDArray[np.float64], b_factor: float | None = None
) -> Curve:
    """Scales: true voxel size of the template over the assumed one."""
    return _curve(scales, np.array([mean_correlation(fields, float(scale), b_factor) for scale in scales]))


def scan_b_factor(
    fields: Sequence[tuple[Field, Sequence[Place]]], b_factors: NDArray[np.float64], scale: float = 1.0
) -> Curve:
    """B factors in A^2. Templates have unit norm, so that the right fall-off is the one that correlates most."""
    return _curve(b_factors, np.array([mean_correlation(fields, scale, float(b)) for b in b_factors]))


def _curve(trials: NDArray[np.float64], means: NDArray[np.float64]) -> Curve:
    top = int(means.argmax())
    if not 0 < top < len(trials) - 1:
        return Curve(trials, means, float(trials[top]))
    a, b, _ = np.polyfit(trials[top - 1 : top + 2], means[top - 1 : top + 2], 2)
    return Curve(trials, means, float(-0.5 * b / a))
