from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vitreous.methods.picking.score_mixture import fit_scores
from vitreous.methods.picking.selection import choose_cuts, fit_own
from vitreous.methods.picking.threshold import NoiseLaw, automatic_threshold, upper_limit

LAW = NoiseLaw(2.4, 1.9)


def noise(n: int, sigma: float, seed: int) -> np.ndarray:
    squares = stats.gumbel_r.rvs(LAW.mode, LAW.scale, size=n, random_state=seed)
    return sigma * np.sqrt(np.clip(squares, 0.01, None))


def test_mixture_is_recovered():
    scores = np.concatenate([noise(500, 0.8, 0), np.random.default_rng(1).normal(5.0, 0.6, 150)])
    model = fit_scores(scores, LAW)
    assert model.share == pytest.approx(150 / 650, abs=0.03)
    assert model.mean == pytest.approx(5.0, abs=0.15)
    assert model.spread == pytest.approx(0.6, abs=0.12)
    assert model.noise_scale == pytest.approx(0.64 * LAW.scale, rel=0.2)


@pytest.mark.parametrize("mean", [4.5, 5.5, 8.0])
def test_threshold_parts_particles_from_noise(mean):
    background, particles = noise(600, 0.9, 3), np.random.default_rng(4).normal(mean, 0.5, 120)
    scores = np.concatenate([background, particles])
    threshold = automatic_threshold(fit_scores(scores, LAW), scores)
    assert (particles >= threshold).mean() > 0.95
    assert (background >= threshold).sum() < 0.1 * (particles >= threshold).sum()


@pytest.mark.parametrize("seed", range(6))
def test_noise_alone_yields_no_particles(seed):
    scores = noise(500, 1.0, seed)
    model = fit_scores(scores, LAW)
    assert not model.found
    assert (scores >= automatic_threshold(model, scores)).sum() <= 2


def test_upper_limit_is_not_pulled_by_what_it_is_to_drop():
    picks = np.concatenate([np.random.default_rng(0).normal(6.0, 0.5, 80), [40.0] * 10])
    assert upper_limit(picks, 5.0) == pytest.approx(9.0, abs=0.8)
    assert upper_limit(picks, 0.0) == np.inf
    assert upper_limit(picks[:4], 5.0) == np.inf


def test_a_few_particles_stand_out():
    scores = np.concatenate([noise(500, 1.0, 0), [9.0, 9.5, 10.0, 10.4, 11.0, 9.8]])
    threshold = automatic_threshold(fit_scores(scores, LAW), scores)
    assert 3.9 < threshold < 9.0
    assert (scores >= threshold).sum() <= 7


def test_noise_law_of_its_own_sample():
    law = NoiseLaw.of(noise(20000, 1.0, 8))
    assert law.mode == pytest.approx(LAW.mode, rel=0.05)
    assert law.scale == pytest.approx(LAW.scale, rel=0.05)
    mean, spread = law.moments()
    assert mean == pytest.approx(noise(20000, 1.0, 9).mean(), rel=0.02)
    assert spread == pytest.approx(noise(20000, 1.0, 9).std(), rel=0.04)


def test_many_strong_particles_are_not_taken_for_noise():
    """More particles than noise, with a few strays above: the two laws must not swap roles."""
    rng = np.random.default_rng(4)
    scores = np.concatenate([noise(90, 0.4, 1), rng.normal(5.0, 0.9, 105), [8.5, 9.0, 9.8]])
    model = fit_scores(scores, LAW)
    assert model.found
    assert 1.5 < automatic_threshold(model, scores) < 3.5


def test_a_thin_micrograph_borrows_the_threshold_of_the_others():
    rng = np.random.default_rng(0)
    rich = [np.concatenate([noise(300, 1.0, s), rng.normal(6.0, 0.5, 80)]) for s in range(3)]
    thin = np.concatenate([noise(20, 1.0, 9), [6.1, 5.8]])
    cuts = choose_cuts([*rich, thin, np.zeros(0)], LAW)
    assert [cut.basis for cut in cuts] == ["own", "own", "own", "pooled", "pooled"]
    assert cuts[3].keeps(thin).sum() == 2


def test_given_and_adjusted_thresholds():
    scores = np.concatenate([noise(300, 1.0, 2), np.random.default_rng(0).normal(6.0, 0.5, 80), [30.0]])
    assert choose_cuts([scores], LAW, given=2.5)[0].threshold == 2.5
    plain, strict = choose_cuts([scores], LAW)[0], choose_cuts([scores], LAW, adjust=0.5)[0]
    assert strict.threshold == pytest.approx(plain.threshold + 0.5 * scores.std())
    assert not plain.keeps(np.array([30.0]))[0]
    assert choose_cuts([scores], LAW, upper_deviations=0.0)[0].keeps(np.array([30.0]))[0]


def test_too_few_scores_are_said():
    with pytest.raises(ValueError, match="too few"):
        fit_scores(np.ones(5), LAW)
    assert choose_cuts([np.ones(3)], LAW)[0].keeps(np.ones(3)).sum() == 0


def test_models_that_ranks_have_fitted_give_the_same_cuts():
    rng = np.random.default_rng(0)
    scores = [np.concatenate([noise(300, 1.0, s), rng.normal(6.0, 0.5, 80)]) for s in range(2)] + [noise(20, 1.0, 9)]
    models = [fit_own(one, LAW) for one in scores]
    assert models[2] is None
    assert choose_cuts(scores, LAW, models=models) == choose_cuts(scores, LAW)


def test_very_many_scores_need_not_all_be_fitted(monkeypatch):
    pooled = np.concatenate([noise(9000, 1.0, 1), np.random.default_rng(0).normal(6.0, 0.5, 2400)])
    parts = np.array_split(np.random.default_rng(1).permutation(pooled), 600)  # too few each to decide for themselves
    every = choose_cuts(parts, LAW)[0]
    monkeypatch.setattr("vitreous.methods.picking.selection._ENOUGH_SCORES", 2000)
    thinned = choose_cuts(parts, LAW)[0]
    assert (every.basis, thinned.basis) == ("pooled", "pooled")
    assert thinned.threshold == pytest.approx(every.threshold, abs=0.05 * noise(9000, 1.0, 1).std())


def test_gumbels_fit_is_scipys():
    squares = np.square(noise(300, 1.3, 5))
    law = NoiseLaw.of(noise(300, 1.3, 5))
    assert (law.mode, law.scale) == pytest.approx(stats.gumbel_r.fit(squares), rel=1e-6)
