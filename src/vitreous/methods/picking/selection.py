"""From the candidates of many micrographs to picks: one threshold each, with the whole set to fall back on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vitreous.methods.picking.score_mixture import fit_scores
from vitreous.methods.picking.threshold import NoiseLaw, ScoreModel, automatic_threshold, upper_limit

# A micrograph whose own humps are this distinct needs no help from the others.
_CLEAR_SEPARATION = 2.5
_FEWEST_CANDIDATES = 40
_ENOUGH_SCORES = 20_000  # that many quantiles of all scores say as much about the two humps as millions of them


@dataclass(frozen=True)
class Cut:
    """Scores kept in a micrograph: threshold <= score <= upper. basis: "own", "pooled", "noise" or "given"."""

    threshold: float
    upper: float
    basis: str

    def keeps(self, scores: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Which scores are picks."""
        return (scores >= self.threshold) & (scores <= self.upper)


def fit_own(scores: Float[np.ndarray, "n"], law: NoiseLaw) -> ScoreModel | None:
    """What a micrograph's scores say by themselves; None for too few. The longest part of choosing a cut."""
    return fit_scores(scores, law) if len(scores) >= _FEWEST_CANDIDATES else None


def choose_cuts(
    scores: list[Float[np.ndarray, "n"]],
    law: NoiseLaw,
    *,
    models: Sequence[ScoreModel | None] | None = None,
    given: float | None = None,
    adjust: float = 0.0,
    upper_deviations: float = 5.0,
) -> list[Cut]:
    """A cut for each micrograph's candidate scores.

    Own scores decide where they show particles clearly; else those of all micrographs together do, if they show any;
    else only what stands out of noise is kept. models: fit_own of each, where that is known already (ranks find it
    micrograph by micrograph). given: a threshold to use instead. adjust: moves the threshold by
    this many standard deviations of the pooled scores (RELION's LoG_adjust_threshold: positive picks fewer).
    upper_deviations: scores more than this many (robust) spreads above the picks' median are dropped (0: none are).
    """
    pooled = np.concatenate([s for s in scores if len(s)]) if any(len(s) for s in scores) else np.zeros(0)
    shift = adjust * float(np.std(pooled)) if len(pooled) else 0.0
    if given is not None:
        found = [(given - shift, "given")] * len(scores)
    else:
        together = _together(_thinned(pooled), law)
        own_models = models if models is not None else [fit_own(own, law) for own in scores]
        found = [_threshold(own, model, together) for own, model in zip(scores, own_models, strict=True)]
    return [
        _cut(own, threshold + shift, basis, upper_deviations)
        for own, (threshold, basis) in zip(scores, found, strict=True)
    ]


def _thinned(scores: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m"]:
    """Evenly spaced ones of the sorted scores, where there are more than enough."""
    if len(scores) <= _ENOUGH_SCORES:
        return scores
    places = (np.arange(_ENOUGH_SCORES) + 0.5) * len(scores) / _ENOUGH_SCORES
    return np.sort(scores)[places.astype(int)]


def _together(pooled: Float[np.ndarray, "m"], law: NoiseLaw) -> tuple[float, str] | None:
    """The threshold by all scores; None for too few."""
    if len(pooled) < 12:
        return None
    model = fit_scores(pooled, law)
    return automatic_threshold(model, pooled), "pooled" if model.found else "noise"


def _threshold(
    own: Float[np.ndarray, "n"], model: ScoreModel | None, together: tuple[float, str] | None
) -> tuple[float, str]:
    if together is None:
        return float("inf"), "noise"
    if model is not None and model.found and model.separation >= _CLEAR_SEPARATION:
        return automatic_threshold(model, own), "own"
    return together


def _cut(own: Float[np.ndarray, "n"], threshold: float, basis: str, deviations: float) -> Cut:
    return Cut(threshold, upper_limit(own[own >= threshold], deviations), basis)
