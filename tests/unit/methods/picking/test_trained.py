"""The trainable picker: its network, loss, batches, curve, calibration, and training as a whole."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import ndimage

from vitreous.methods.picking.calibration import Calibration, calibrate, log_odds_threshold
from vitreous.methods.picking.examples import Examples, LabelledMicrograph
from vitreous.methods.picking.network import PickerNetwork, logit_map
from vitreous.methods.picking.positive_unlabelled import ge_binomial, nn_pu
from vitreous.methods.picking.precision_recall import hits, precision_recall
from vitreous.methods.picking.trained import PickerScale, cut_log_odds, working_micrograph
from vitreous.methods.picking.training import (
    Epoch,
    Progress,
    TrainingPlan,
    finish,
    particle_prior,
    start,
    train,
    validate,
)

CPU = torch.device("cpu")
SIDE, N = 120, 10


def field(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright rings in noise beside bright discs of the same size, which are not wanted; centres (y, x) of the rings."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    places = np.stack(np.meshgrid(np.arange(15, SIDE - 10, 22), np.arange(15, SIDE - 10, 22)), -1).reshape(-1, 2)
    places = (places + rng.uniform(-2, 2, places.shape))[rng.permutation(len(places))]
    image = rng.normal(size=(SIDE, SIDE))
    for index, (py, px) in enumerate(places):
        r = np.hypot(y - py, x - px)
        image += 2.5 * (((r < 7) & (r > 4)) if index < N else r < 6)
    return image, places[:N]


def labelled(seed: int, keep: int = N) -> LabelledMicrograph:
    image, places = field(seed)
    return LabelledMicrograph(image, np.ones(image.shape, dtype=bool), places[:keep])


PLAN = TrainingPlan(
    particle_prior(N * 3, 3 * SIDE**2), distance_px=11.0, tolerance_px=4.7, epochs=3, steps=25, n_positive=24,
    n_unlabelled=768, learning_rate=2e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    """Half of the rings of three fields are labelled."""
    examples = Examples([labelled(seed, 5) for seed in range(3)], 2.0)
    held_out = [labelled(10, 5)]
    states = list(train(start(PLAN), examples, held_out, PLAN, CPU))
    return examples, held_out, states


@pytest.mark.slow
def test_rings_are_told_from_discs_that_a_blob_filter_cannot_tell(trained):
    _, held_out, states = trained
    network, calibration, _ = finish(states[-1], held_out, PLAN, 0.5, CPU)
    curve, output, is_hit = validate(network, [labelled(20), labelled(21)], PLAN, CPU)
    assert curve.area > 0.95
    scores = calibration(output)
    found = cut_log_odds([scores])[0].keeps(scores)
    assert is_hit[found].mean() > 0.9
    assert is_hit[found].sum() >= 0.9 * 2 * N
    blobs = ndimage.gaussian_filter(field(20)[0], 3.0)
    y, x = field(20)[1].astype(int).T
    assert blobs[y, x].mean() < blobs.max() * 0.7  # discs are brighter


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_the_same_bits(trained):
    examples, held_out, states = trained
    again = list(train(copy.deepcopy(states[0]), examples, held_out, PLAN, CPU))
    assert len(again) == len(states) - 1
    assert again[-1].history == states[-1].history
    for name, value in states[-1].weights.items():
        assert torch.equal(again[-1].weights[name], value)


def test_it_stops_when_nothing_gets_better():
    stale = Progress({}, history=[Epoch(1.0, 0.9, 1.0, 1.0)] + [Epoch(0.5, 0.8, 1.0, 1.0)] * PLAN.patience)
    assert stale.is_done(TrainingPlan(0.1, 1.0, 1.0, epochs=100))
    assert not stale.is_done(TrainingPlan(0.1, 1.0, 1.0, epochs=100, patience=9))


def test_a_whole_micrograph_and_its_parts_get_the_same_numbers(monkeypatch):
    network = PickerNetwork(torch.Generator().manual_seed(3), 0.1)
    image = np.random.default_rng(0).normal(size=(90, 70))
    whole = logit_map(network, image, CPU)
    assert whole.shape == image.shape
    monkeypatch.setattr("vitreous.methods.picking.network._TILE_ROWS", 32)
    np.testing.assert_allclose(logit_map(network, image, CPU), whole, atol=1e-5)
    m = PickerNetwork.margin
    inner = network(torch.from_numpy(image[None].astype(np.float32)))[0].detach().numpy()
    np.testing.assert_allclose(whole[m:-m, m:-m], inner, atol=1e-5)
    assert PickerNetwork.field == 35


def test_the_untrained_network_answers_with_the_prior():
    network = PickerNetwork(torch.Generator().manual_seed(1), 0.02)
    out = logit_map(network, np.random.default_rng(1).normal(size=(64, 64)), CPU)
    assert np.median(1 / (1 + np.exp(-out))) == pytest.approx(0.02, rel=0.5)


def test_expected_numbers_are_least_at_the_prior():
    """All pixels undecided by a share p: the binomial term is least where p is the prior."""
    positive = torch.full((10,), 30.0)
    undecided = [torch.logit(torch.full((400,), p)) for p in (0.02, 0.05, 0.1, 0.2, 0.4)]
    losses = [float(ge_binomial(positive, one, 0.1)) for one in undecided]
    assert int(np.argmin(losses)) == 2
    decided = torch.where(torch.arange(400) < 40, 9.0, -9.0)
    none = torch.full((400,), -9.0)
    assert float(ge_binomial(positive, decided, 0.1)) < float(ge_binomial(positive, none, 0.1))


def test_non_negative_risk_is_that_of_full_labels_and_turns_back_where_negative():
    """With true labels at hand: the estimate from positive and unlabelled logits is the risk of both kinds."""
    rng, prior = np.random.default_rng(0), 0.3
    positive = torch.from_numpy(rng.normal(1.5, 1.0, 200_000))
    negative = torch.from_numpy(rng.normal(-1.5, 1.0, 200_000))
    mixed = torch.where(torch.from_numpy(rng.random(200_000) < prior), positive, negative)
    risk = prior * torch.nn.functional.softplus(-positive).mean()
    risk += (1 - prior) * torch.nn.functional.softplus(negative).mean()
    other = torch.from_numpy(rng.normal(1.5, 1.0, 200_000))
    assert float(nn_pu(other, mixed, prior)) == pytest.approx(float(risk), rel=0.01)
    fitted = nn_pu(torch.full((5,), 8.0), torch.full((50,), -8.0), prior)
    assert float(fitted) == pytest.approx(prior * 8.0, rel=0.01)


def test_batches_hold_what_they_say():
    """An image whose value is its own place: patches, turned and mirrored, and their labels can be checked."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    picks = np.array([[60.3, 40.6], [2.0, 110.0]])
    examples = Examples([LabelledMicrograph(1000 * y + x, x < 80, picks)], 2.0)
    batch = examples.batch(40, 4096, torch.Generator().manual_seed(0))
    m = PickerNetwork.margin
    inner = batch.positive[:, m:-m, m:-m].flatten(1).to(torch.float64)
    rows, columns = torch.div(inner, 1000, rounding_mode="floor"), inner % 1000
    away = torch.stack([torch.hypot(rows - p[0], columns - p[1]) for p in picks]).amin(0)
    assert torch.equal(away <= 2.0, batch.labelled)
    assert len({tuple(one[m].tolist()) for one in batch.positive}) > 8  # turned and mirrored
    values = batch.unlabelled[:, m:-m, m:-m].flatten(1).gather(1, batch.drawn)
    assert (values[batch.usable] % 1000 < 80).all()
    assert 0.3 < float(batch.usable.double().mean()) < 0.9


def test_hits_are_one_to_one_and_the_area_is_what_it_should_be():
    picks = np.array([[10.0, 10.0], [30.0, 30.0]])
    found = hits(np.array([[11.0, 10.0], [9.0, 10.0], [50.0, 50.0], [30.0, 31.0]]), picks, 3.0)
    assert found.tolist() == [True, False, False, True]
    curve = precision_recall(np.array([4.0, 3.0, 2.0, 1.0]), found, 2)
    assert curve.recall.tolist() == [0.5, 0.5, 0.5, 1.0]
    assert curve.area == pytest.approx(0.5 * 1.0 + 0.5 * 0.5)


def test_calibration_gives_back_the_odds_it_was_made_of():
    """Outputs drawn with known log-odds, of which 40% of the particles were picked."""
    rng = np.random.default_rng(2)
    output = rng.normal(0.0, 2.0, 40_000)
    particle = rng.random(len(output)) < 1 / (1 + np.exp(-(1.7 * output - 0.8)))
    picked = particle & (rng.random(len(output)) < 0.4)
    found = calibrate(output, picked, 0.4)
    assert found.slope == pytest.approx(1.7, abs=0.15)
    assert found.offset == pytest.approx(-0.8, abs=0.2)
    apart = calibrate(np.array([-3.0, -2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    assert np.isfinite([apart.slope, apart.offset]).all()
    assert Calibration(2.0, 1.0)(np.array([1.0]))[0] == 3.0


def test_the_threshold_lies_in_the_valley_near_even_odds():
    rng = np.random.default_rng(1)
    two = np.concatenate([rng.normal(-6, 1.5, 400), rng.normal(4, 1.0, 150)])
    threshold, basis = log_odds_threshold(two)
    assert basis == "valley"
    assert -2.0 <= threshold <= 2.0
    assert log_odds_threshold(rng.normal(-6, 1.5, 400)) == (0.0, "even odds")
    assert log_odds_threshold(np.zeros(3)) == (0.0, "even odds")
    assert cut_log_odds([two], given=1.25)[0].threshold == 1.25


def test_places_go_to_working_pixels_and_back():
    micrograph = torch.from_numpy(np.random.default_rng(0).normal(size=(700, 900)).astype(np.float32))
    work = working_micrograph(micrograph, 1.5, PickerScale(8.0, 100.0))
    points = np.array([[10.0, 20.0], [899.0, 350.5]])
    np.testing.assert_allclose(work.to_micrograph(work.to_working(points)), points)
    with pytest.raises(ValueError, match="smaller than two particles"):
        working_micrograph(micrograph, 0.1, PickerScale(8.0, 100.0))
