"""The mixture of noise and particles in the scores of candidate picks, fitted by maximum likelihood.

Where noise alone describes the scores as well (BIC), no particle is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize

from vitreous.methods.picking.threshold import NoiseLaw, ScoreModel

# Humps closer than this many (common) standard deviations are one hump with a tail.
_LEAST_SEPARATION = 1.5
# Share of candidates that are neither (dirt, detector faults), spread evenly over all scores.
_STRAY_SHARE = 0.01
# How far mode/scale of the noise may stray from its law (particles crowd the noise between them).
_RATIO_SPREAD = 0.05


def fit_scores(scores: Float[np.ndarray, "n"], law: NoiseLaw) -> ScoreModel:
    """Fit the mixture to candidate scores (positive), given what pure noise would look like.

    The law enters as a prior on the ratio mode/scale: a clear hump overrules it, a weak one is told from noise's own
    tail by it. The particles' mean must lie above what noise of spread 1 gives (scores are in units of a robust
    spread that particles can only inflate). Raises ValueError with fewer than 12 scores.
    """
    if len(scores) < 12:
        raise ValueError(f"{len(scores)} candidates are too few to tell particles from noise")
    mixture, own = Mixture.of(scores, law), NoiseLaw.of(scores)
    noise = _least(mixture.noise_cost, np.array([own.mode, np.log(own.scale)]))
    starts = [_start(scores, cut) for cut in (*np.quantile(scores, [0.3, 0.5, 0.7, 0.85, 0.95]), _otsu(scores))]
    fits = [_least(mixture.cost, start) for start in starts]
    law_mean, law_spread = law.moments()
    models = [(float(fit.fun), mixture.model(fit.x)) for fit in fits]
    # The laws can swap roles (noise's tail posing as particles and the bulk as a hump below): no answer either.
    honest = [one for one in models if one[1].separation > _LEAST_SEPARATION and one[1].mean > law_mean + law_spread]
    if honest:
        cost, model = min(honest, key=lambda one: one[0])
        if 2.0 * (float(noise.fun) - cost) > 3.0 * np.log(len(scores)):
            return model
    mode, scale = float(noise.x[0]), float(np.exp(noise.x[1]))
    return ScoreModel(mode, scale, 0.0, float(np.sqrt(max(mode, 0.0))), 0.0, 0.0)


def _least(cost: Any, start: Float[np.ndarray, "p"]) -> Any:
    return optimize.minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})


@dataclass(frozen=True)
class Mixture:
    """Minus log-likelihoods of scores, with their gradients.

    Parameters are (logit of the share, noise mode, log noise scale, particles' mean, log spread), or noise's two; scale
    and spread have `floor` below them. stray: log-density of a thin even layer, so that one odd score cannot bend the
    fit. ratio: mode over scale that noise's law foretells.
    """

    scores: Float[np.ndarray, "n"]
    floor: float
    stray: float
    ratio: float

    @staticmethod
    def of(scores: Float[np.ndarray, "n"], law: NoiseLaw) -> Mixture:
        """The mixture for these scores."""
        floor = 0.05 * float(np.std(scores)) + 1e-9
        stray = float(np.log(_STRAY_SHARE / max(float(np.ptp(scores)), 1e-9)))
        return Mixture(scores, floor, stray, law.mode / law.scale)

    def cost(self, p: Float[np.ndarray, "5"]) -> tuple[float, Float[np.ndarray, "5"]]:
        """Of the mixture."""
        share, mode, scale, mean, spread = self._unpack(p)
        noise, by_mode, by_scale = self._log_noise(mode, scale)
        noise += np.log1p(-min(share, 1 - 1e-12))
        off = (self.scores - mean) / spread
        particle = np.log(max(share, 1e-12)) - 0.5 * off**2 - np.log(spread) - 0.5 * np.log(2 * np.pi)
        total = np.logaddexp(np.logaddexp(noise, particle), self.stray)
        of_noise, of_particle = np.exp(noise - total), np.exp(particle - total)
        extra, extra_mode, extra_scale = self._prior(mode, scale)
        gradient = np.array([
            share * of_noise.sum() - (1.0 - share) * of_particle.sum(),
            extra_mode - of_noise @ by_mode,
            (extra_scale - of_noise @ by_scale) * (scale - self.floor),
            -(of_particle @ off) / spread,
            -(of_particle @ (off**2 - 1.0)) / spread * (spread - self.floor),
        ])  # fmt: skip
        return float(extra - total.sum()), gradient

    def noise_cost(self, p: Float[np.ndarray, "2"]) -> tuple[float, Float[np.ndarray, "2"]]:
        """Of noise alone; its log scale has no floor."""
        mode, scale = float(p[0]), float(np.exp(p[1]))
        noise, by_mode, by_scale = self._log_noise(mode, scale)
        total = np.logaddexp(noise, self.stray)
        of_noise = np.exp(noise - total)
        extra, extra_mode, extra_scale = self._prior(mode, scale)
        gradient = np.array([extra_mode - of_noise @ by_mode, (extra_scale - of_noise @ by_scale) * scale])
        return float(extra - total.sum()), gradient

    def model(self, p: Float[np.ndarray, "5"]) -> ScoreModel:
        """What the parameters say."""
        share, mode, scale, mean, spread = self._unpack(p)
        noise_mean, noise_spread = NoiseLaw(mode, scale).moments()
        separation = (mean - noise_mean) / np.sqrt(0.5 * (noise_spread**2 + spread**2))
        return ScoreModel(mode, scale, share, mean, spread, float(separation))

    def _unpack(self, p: Float[np.ndarray, "5"]) -> tuple[float, float, float, float, float]:
        share = 1.0 / (1.0 + np.exp(-np.clip(p[0], -20, 20)))
        scale, spread = self.floor + np.exp(np.minimum(p[[2, 4]], 20.0))
        return float(share), float(p[1]), float(scale), float(p[3]), float(spread)

    def _log_noise(
        self, mode: float, scale: float
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Log-density of noise, and its derivatives by mode and scale."""
        z = (self.scores**2 - mode) / scale
        below = np.exp(np.clip(-z, None, 50.0))
        return -z - below + np.log(2.0 * self.scores / scale), (1.0 - below) / scale, (z * (1.0 - below) - 1.0) / scale

    def _prior(self, mode: float, scale: float) -> tuple[float, float, float]:
        """Cost of straying from the law's ratio, and its derivatives by mode and scale."""
        off = (mode / scale - self.ratio) / _RATIO_SPREAD
        by_mode = off / (_RATIO_SPREAD * scale)
        return 0.5 * off**2, by_mode, -by_mode * mode / scale


def _start(scores: Float[np.ndarray, "n"], cut: float) -> Float[np.ndarray, "5"]:
    low, high = scores[scores <= cut], scores[scores > cut]
    if len(low) < 2 or len(high) < 2:
        low = high = scores
    share = np.clip(len(high) / len(scores), 0.02, 0.98)
    low_scale, high_scale = max(np.std(low**2) / 1.2825, 1e-3), max(np.std(high), 1e-3)
    noise_mode = np.mean(low**2) - 0.5772 * low_scale
    return np.array([np.log(share / (1 - share)), noise_mode, np.log(low_scale), np.mean(high), np.log(high_scale)])


def _otsu(scores: Float[np.ndarray, "n"]) -> float:
    """The cut that maximises the variance between its sides (Otsu 1979)."""
    ordered = np.sort(scores)
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    low = sums[:-1] / below
    high = (sums[-1] - sums[:-1]) / (len(ordered) - below)
    return float(ordered[:-1][np.argmax(below * (len(ordered) - below) * (low - high) ** 2)])
