"""Which class averages to keep, and why: each measure against the best classes of the same run.

There is no absolute measure of a good class: pixel size, particle and number of images differ from run to run. So the
best-resolved classes that hold a good part of the particles set the reference, and each class gets points between 0
and 1 for each measure; their product is its score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vitreous.methods.selection.features import ClassFeatures

# The best-resolved classes that together hold this share of the particles are the reference.
_LEADING_SHARE = 0.4
# A class with less than this part of an even share does not set the reference.
_SMALL_CLASS = 0.3
# Detail finer than this part of the diameter (secondary structure) is good enough, however fine the best is: views
# that are rare are less resolved and must not be lost.
_FINE_DETAIL = 1.0 / 16.0
_UNRESOLVED = 200.0  # A: classifications write 999 for classes that are dead
# Likeness over the leaders' own at which a class is unlike them, and like them; what likeness makes up for at most.
_UNLIKE, _ALIKE, _FORGIVEN = 0.92, 0.98, 0.9


@dataclass(frozen=True)
class Verdict:
    """One class: kept or not, its score (0 to 1), points by measure, and the reason in words."""

    kept: bool
    score: float
    points: dict[str, float]
    reason: str


@dataclass(frozen=True)
class Reference:
    """Typical values of the leading classes (weighted medians)."""

    resolution: float
    contrast: float
    roughness: float
    extent: float
    detail: float


def judge_classes(
    features: ClassFeatures, min_score: float = 0.5, likeness: Float[np.ndarray, "k"] | None = None
) -> list[Verdict]:
    """A verdict on each class. Raises ValueError where no class is resolved at all.

    likeness: correlation of each class with the leaders (`likeness_to_leaders`); what looks like them is forgiven
    its resolution.
    """
    leaders = leading_classes(features)
    reference = reference_values(features, leaders)
    points = _points(features, reference)
    if likeness is not None and len(leaders) > 1:
        typical = weighted_median(likeness[leaders], features.share[leaders])
        alike = _rise(likeness / max(typical, 1e-6), _UNLIKE, _ALIKE)
        points["resolution"] = np.maximum(points["resolution"], _FORGIVEN * alike)
    names = list(points)
    table = np.stack([points[name] for name in names])
    scores = table.prod(axis=0)
    verdicts = []
    for k, score in enumerate(scores):
        own = {name: float(value) for name, value in zip(names, table[:, k], strict=True)}
        kept = bool(score >= min_score)
        verdicts.append(Verdict(kept, float(score), own, _reason(k, kept, own, features, reference)))
    return verdicts


def leading_classes(features: ClassFeatures) -> Int[np.ndarray, "l"]:
    """The best-resolved classes that hold a good part of the particles. Raises ValueError if none is resolved."""
    large = features.share >= _SMALL_CLASS / len(features)
    alive = (features.resolution < _UNRESOLVED) & (features.contrast > 0) & large
    if not alive.any():
        raise ValueError("no class is resolved: the classification found nothing")
    order = np.flatnonzero(alive)[np.argsort(features.resolution[alive], kind="stable")]
    count = int(np.searchsorted(np.cumsum(features.share[order]), _LEADING_SHARE * features.share[alive].sum())) + 1
    return order[:count]


def reference_values(features: ClassFeatures, leaders: Int[np.ndarray, "l"]) -> Reference:
    """Medians over the leaders, weighted by their particles."""
    weights = features.share[leaders]
    return Reference(
        resolution=weighted_median(features.resolution[leaders], weights),
        contrast=weighted_median(features.contrast[leaders], weights),
        # Simulated or plentiful particles give rings flatter than it is fair to ask of all classes.
        roughness=max(weighted_median(features.roughness[leaders], weights), 0.04),
        extent=weighted_median(features.extent[leaders], weights),
        detail=weighted_median(features.detail[leaders], weights),
    )


def weighted_median(values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"]) -> float:
    """The value below which half of the weight lies."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])


def _points(features: ClassFeatures, reference: Reference) -> dict[str, Float[np.ndarray, "k"]]:
    even = 1.0 / len(features)
    resolution = max(reference.resolution, features.diameter * _FINE_DETAIL)
    contrast = features.contrast / reference.contrast
    extent = features.extent / reference.extent
    return {
        "resolution": _fall(features.resolution / resolution, 1.1, 1.5),
        "roughness": _fall(features.roughness / reference.roughness, 1.4, 3.5),
        "contrast": _rise(contrast, 0.4, 0.75) * _fall(contrast, 1.5, 2.5),
        "extent": _rise(extent, 0.45, 0.75) * _fall(extent, 1.3, 1.8),
        "offset": _fall(features.offset, 0.12, 0.35),
        "wholeness": _rise(features.wholeness, 0.4, 0.85),
        "detail": _rise(features.detail / reference.detail, 0.1, 0.35),
        "share": _rise(features.share / even, 0.03, 0.15),
    }


def _rise(values: Float[np.ndarray, "k"], low: float, high: float) -> Float[np.ndarray, "k"]:
    """0 up to low, 1 from high, a straight line between."""
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _fall(values: Float[np.ndarray, "k"], low: float, high: float) -> Float[np.ndarray, "k"]:
    return 1.0 - _rise(values, low, high)


def _reason(k: int, kept: bool, points: dict[str, float], features: ClassFeatures, reference: Reference) -> str:
    """The measures that cost points, worst first; for a class that lost hardly any, what is good about it."""
    resolution, share = features.resolution[k], 100 * features.share[k]
    if not kept and resolution >= _UNRESOLVED:
        return f"not resolved: a dead class ({share:.2f}% of the particles)"
    shown = f"{resolution:.1f} A" if resolution < _UNRESOLVED else "not resolved"
    phrases: dict[str, Callable[[], str]] = {
        "resolution": lambda: f"resolution {shown} (best classes {reference.resolution:.1f} A)",
        "roughness": lambda: f"uneven background ({features.roughness[k]:.2f}, best {reference.roughness:.2f})",
        "contrast": lambda: f"{_side(features.contrast[k], reference.contrast, 'weak', 'overstrong')} contrast",
        "extent": lambda: f"{_side(features.extent[k], reference.extent, 'too small', 'too large')} for the particle",
        "offset": lambda: f"off centre by {features.offset[k]:.2f} of the radius",
        "wholeness": lambda: f"in pieces (largest {100 * features.wholeness[k]:.0f}%)",
        "detail": lambda: "a blob without detail",
        "share": lambda: f"nearly empty ({share:.2f}% of the particles)",
    }
    costly = sorted((value, name) for name, value in points.items() if value < (0.75 if kept else 0.9))
    if kept and not costly:
        return f"{shown}, {share:.1f}% of the particles, whole and centred on an even background"
    prefix = "kept in spite of: " if kept else ""
    return prefix + "; ".join(phrases[name]() for _, name in costly[:3])


def _side(value: float, reference: float, low: str, high: str) -> str:
    return low if value < reference else high
