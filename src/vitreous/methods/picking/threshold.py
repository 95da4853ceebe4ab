"""Where particles part from noise in the scores of candidate picks.

Candidates are maxima of a filtered field with a minimum distance: each is the extreme of its neighbourhood. In a
Gaussian field P(extreme < t) = exp(-nu exp(-t^2 / 2 sigma^2)) for high t (Rice 1944; Adler and Taylor, Random Fields
and Geometry), so the square of a noise score follows a Gumbel law. Particles add a broader hump at higher scores. The
mixture of the two is fitted by maximum likelihood; where noise alone describes the scores as well (BIC), no particle
is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

# Humps closer than this many (common) standard deviations are one hump with a tail.
_LEAST_SEPARATION = 1.5
# Share of candidates that are neither (dirt, detector faults), spread evenly over all scores.
_STRAY_SHARE = 0.01
# How far mode/scale of the noise may stray from its law (particles crowd the noise between them).
_RATIO_SPREAD = 0.05


@dataclass(frozen=True)
class ScoreModel:
    """Mixture of noise (its square Gumbel with noise_mode, noise_scale) and particles (normal: mean, spread).

    share: fraction of the candidates that are particles (0: noise alone explains the scores). separation: distance
    of the particles' mean from noise's in units of their common spread; above about 2 the two humps are distinct.
    """

    noise_mode: float
    noise_scale: float
    share: float
    mean: float
    spread: float
    separation: float

    @property
    def found(self) -> bool:
        """Whether the scores show particles at all."""
        return self.share > 0.0

    def noise_above(self, score: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Share of all candidates that are noise above score."""
        squared = np.square(np.maximum(score, 0.0))
        return (1.0 - self.share) * -np.expm1(-np.exp((self.noise_mode - squared) / self.noise_scale))

    def particles_above(self, score: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Share of all candidates that are particles above score."""
        return self.share * np.asarray(special.ndtr((self.mean - score) / max(self.spread, 1e-9)))


@dataclass(frozen=True)
class NoiseLaw:
    """Gumbel law (mode, scale) of the squared scores of candidates in pure Gaussian noise of spread 1.

    Another spread sigma scales both by sigma^2; their ratio is a property of the filter and the minimum distance.
    """

    mode: float
    scale: float

    @staticmethod
    def of(scores: Float[np.ndarray, "n"]) -> NoiseLaw:
        """The law fitted to candidate scores of noise."""
        return NoiseLaw(*_fit_gumbel(np.square(scores)))

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of a noise score, from evenly spaced quantiles of its square."""
        quantiles = self.mode - self.scale * np.log(-np.log((np.arange(200) + 0.5) / 200))
        scores = np.sqrt(np.maximum(quantiles, 0.0))
        return float(scores.mean()), float(scores.std())


def _fit_gumbel(values: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Mode and scale of greatest likelihood (scipy.stats has this too, and takes ranks half a second to start).

    The scale s solves s = mean(x) - sum(x w) / sum(w) with w = exp(-x / s); the mode follows.
    """
    above = values - values.min()  # keeps exp in range
    spread = float(np.std(values))
    if spread == 0.0:
        return float(values[0]), 1e-9

    def excess(scale: float) -> float:
        weights = np.exp(-above / scale)
        return float(scale - above.mean() + (above * weights).sum() / weights.sum())

    scale = float(optimize.brentq(excess, 1e-6 * spread, 1e3 * spread, xtol=1e-14 * spread))
    return float(values.min() - scale * np.log(np.exp(-above / scale).mean())), scale


def fit_scores(scores: Float[np.ndarray, "n"], law: NoiseLaw) -> ScoreModel:
    """Fit the mixture to candidate scores (positive), given what pure noise would look like.

    The law enters as a prior on the ratio mode/scale: a clear hump overrules it, a weak one is told from noise's own
    tail by it. The particles' mean must lie above what noise of spread 1 gives (scores are in units of a robust
    spread that particles can only inflate). Raises ValueError with fewer than 12 scores.
    """
    if len(scores) < 12:
        raise ValueError(f"{len(scores)} candidates are too few to tell particles from noise")
    floor = 0.05 * float(np.std(scores)) + 1e-9
    stray = np.log(_STRAY_SHARE / max(float(np.ptp(scores)), 1e-9))

    def prior(mode: float, scale: float) -> float:
        return float(0.5 * ((mode / scale - law.mode / law.scale) / _RATIO_SPREAD) ** 2)

    def mixture_cost(p: Float[np.ndarray, "5"]) -> float:
        _, mode, scale, _, _ = _unpack(p, floor)
        return _cost(np.logaddexp(*_log_densities(scores, p, floor)), stray) + prior(mode, scale)

    def noise_cost(p: Float[np.ndarray, "2"]) -> float:
        scale = float(np.exp(p[1]))
        return _cost(_log_noise(scores, p[0], scale), stray) + prior(p[0], scale)

    own = NoiseLaw.of(scores)
    noise = optimize.minimize(noise_cost, [own.mode, np.log(own.scale)], method="L-BFGS-B")
    starts = [_start(scores, cut) for cut in (*np.quantile(scores, [0.3, 0.5, 0.7, 0.85, 0.95]), _otsu(scores))]
    fits = [optimize.minimize(mixture_cost, start, method="L-BFGS-B", options={"maxiter": 300}) for start in starts]
    law_mean, law_spread = law.moments()
    models = [(float(fit.fun), _model(fit.x, floor)) for fit in fits]
    # The laws can swap roles (noise's tail posing as particles and the bulk as a hump below): no answer either.
    honest = [one for one in models if one[1].separation > _LEAST_SEPARATION and one[1].mean > law_mean + law_spread]
    if honest:
        cost, model = min(honest, key=lambda one: one[0])
        if 2.0 * (float(noise.fun) - cost) > 3.0 * np.log(len(scores)):
            return model
    mode, scale = float(noise.x[0]), float(np.exp(noise.x[1]))
    return ScoreModel(mode, scale, 0.0, float(np.sqrt(max(mode, 0.0))), 0.0, 0.0)


def _model(p: Float[np.ndarray, "5"], floor: float) -> ScoreModel:
    share, mode, scale, mean, spread = _unpack(p, floor)
    noise_mean, noise_spread = NoiseLaw(mode, scale).moments()
    separation = (mean - noise_mean) / np.sqrt(0.5 * (noise_spread**2 + spread**2))
    return ScoreModel(mode, scale, share, mean, spread, float(separation))


def _cost(log_density: Float[np.ndarray, "n"], stray: float) -> float:
    """Minus log-likelihood with a thin even layer of strays, so that one odd score cannot bend the fit."""
    return float(-np.logaddexp(log_density, stray).sum())


def _unpack(p: Float[np.ndarray, "5"], floor: float) -> tuple[float, float, float, float, float]:
    share = 1.0 / (1.0 + np.exp(-np.clip(p[0], -20, 20)))
    noise_scale, spread = floor + np.exp(np.minimum(p[[2, 4]], 20.0))
    return float(share), float(p[1]), float(noise_scale), float(p[3]), float(spread)


def _log_densities(
    scores: Float[np.ndarray, "n"], p: Float[np.ndarray, "5"], floor: float
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    weight, m0, s0, m1, s1 = _unpack(p, floor)
    noise = np.log1p(-min(weight, 1 - 1e-12)) + _log_noise(scores, m0, s0)
    particle = np.log(max(weight, 1e-12)) - 0.5 * ((scores - m1) / s1) ** 2 - np.log(s1) - 0.5 * np.log(2 * np.pi)
    return noise, particle


def _log_noise(scores: Float[np.ndarray, "n"], mode: float, scale: float) -> Float[np.ndarray, "n"]:
    z = (scores**2 - mode) / scale
    return -z - np.exp(np.clip(-z, None, 50.0)) + np.log(2.0 * scores / scale)


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


def automatic_threshold(model: ScoreModel, scores: Float[np.ndarray, "n"], max_false: float = 0.05) -> float:
    """Lowest score above which a pick is more likely a particle than noise, and at most max_false of picks are noise.

    Where the scores show a valley between noise and particles, not below its floor: what the two laws do not describe
    (dirt, damaged particles) lies there.
    Without a particle hump: the score above which noise alone would leave max_false of the candidates there, which
    in a field of noise is above (nearly) all of them.
    """
    lowest = float(np.sqrt(max(model.noise_mode, 0.0)))
    grid = np.linspace(lowest, max(float(scores.max()), lowest) + np.sqrt(20.0 * model.noise_scale), 2000)
    if not model.found:
        observed = len(scores) - np.searchsorted(np.sort(scores), grid, side="left")
        expected = len(scores) * model.noise_above(grid)
        meets = expected <= max_false * np.maximum(observed, 1)
        return float(grid[np.argmax(meets)]) if meets.any() else float(grid[-1])
    noise, particles = model.noise_above(grid), model.particles_above(grid)
    noise_density, particle_density = -np.gradient(noise, grid), -np.gradient(particles, grid)
    # Beyond the particles' mean their normal law falls faster than noise's exponential tail: no reason to stop there.
    likely = (particle_density >= noise_density) | (grid >= model.mean)
    pure = noise <= max_false * (noise + particles)
    first = max(int(np.argmax(likely)), int(np.argmax(pure)) if pure.any() else int(np.argmax(grid >= model.mean)))
    return max(float(grid[first]), _valley(scores, lowest, model.mean))


def _valley(scores: Float[np.ndarray, "n"], low: float, high: float) -> float:
    """Where the density of scores reaches its floor between two humps, coming from low; -inf without a clear dip."""
    grid = np.linspace(low, high, 400)
    width = 0.35 * len(scores) ** -0.2 * float(np.std(scores))  # Scott's rule, narrowed
    density = np.exp(-0.5 * ((grid[:, None] - scores[None, :]) / width) ** 2).sum(axis=1)
    lowest = int(np.argmin(density))
    hump = float(density[lowest:].max())
    if density[lowest] > 0.6 * hump:
        return -np.inf
    return float(grid[np.argmax(density <= density[lowest] + 0.05 * hump)])


def upper_limit(picks: Float[np.ndarray, "n"], deviations: float) -> float:
    """Score beyond which a pick is too strong to be a particle: deviations (robust) above the median of the picks."""
    if deviations <= 0 or len(picks) < 10:
        return float("inf")
    middle = float(np.median(picks))
    return middle + deviations * 1.4826 * float(np.median(np.abs(picks - middle)))
