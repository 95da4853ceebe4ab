"""Where particles part from noise in the scores of candidate picks.

Candidates are maxima of a filtered field with a minimum distance: each is the extreme of its neighbourhood. In a
Gaussian field P(extreme < t) = exp(-nu exp(-t^2 / 2 sigma^2)) for high t (Rice 1944; Adler and Taylor, Random Fields
and Geometry), so the square of a noise score follows a Gumbel law. Particles add a broader hump at higher scores
(`score_mixture` fits the two).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, special


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
