from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from vitreous.methods.picking.score_mixture import Mixture
from vitreous.methods.picking.threshold import NoiseLaw

LAW = NoiseLaw(8.0, 1.6)


@pytest.fixture
def mixture():
    rng = np.random.default_rng(3)
    noise = np.sqrt(np.maximum(rng.gumbel(LAW.mode, LAW.scale, 400), 0.01))
    return Mixture.of(np.concatenate([noise, rng.normal(6.0, 0.7, 120), [25.0]]), LAW)


@pytest.mark.parametrize("at", [[-1.0, 8.0, 0.5, 6.0, -0.4], [2.0, 5.0, 1.5, 4.0, 1.0], [-6.0, 9.5, -0.5, 9.0, -2.0]])
def test_gradients_are_those_of_the_costs(mixture, at):
    for cost, p in ((mixture.cost, np.array(at)), (mixture.noise_cost, np.array(at[1:3]))):
        wanted = optimize.approx_fprime(p, lambda q, cost=cost: cost(q)[0], 1e-7)
        assert cost(p)[1] == pytest.approx(wanted, rel=1e-4, abs=1e-3)


def test_the_cost_is_the_likelihood_of_the_three_layers(mixture):
    share, mode, scale, mean, spread = 0.2, 8.0, 1.6 + mixture.floor, 6.0, 0.7 + mixture.floor
    x = mixture.scores
    z = (x**2 - mode) / scale
    gumbel = np.exp(-z - np.exp(-z)) * 2.0 * x / scale
    normal = np.exp(-0.5 * ((x - mean) / spread) ** 2) / (spread * np.sqrt(2.0 * np.pi))
    wanted = -np.log((1.0 - share) * gumbel + share * normal + np.exp(mixture.stray)).sum()
    wanted += 0.5 * ((mode / scale - LAW.mode / LAW.scale) / 0.05) ** 2
    p = np.array([np.log(share / (1.0 - share)), mode, np.log(1.6), mean, np.log(0.7)])
    assert mixture.cost(p)[0] == pytest.approx(wanted)
