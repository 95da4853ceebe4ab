from __future__ import annotations

import numpy as np
import pytest

from vitreous.methods.selection.micrographs import Limits, Quantity, judge_micrographs, outlier_limits

RESOLUTION = Quantity("ctf_resolution", "CTF fit", "A", "high")
MERIT = Quantity("merit", "figure of merit", "", "low")


def test_every_limit_that_fails_is_said_and_what_is_unknown_fails() -> None:
    values = {"ctf_resolution": np.array([3.0, 9.0, np.nan, 8.0]), "merit": np.array([0.2, 0.01, 0.2, 0.2])}
    limits = {"ctf_resolution": Limits(high=6.0), "merit": Limits(low=0.1)}
    reasons = judge_micrographs(values, [RESOLUTION, MERIT], limits)
    assert reasons == [
        "",
        "CTF fit 9 A is above 6; figure of merit 0.01 is below 0.1",
        "CTF fit is not known",
        "CTF fit 8 A is above 6",
    ]
    assert judge_micrographs(values, [RESOLUTION, MERIT], {}) == ["", "", "", ""]


@pytest.mark.parametrize("seed", range(5))
def test_outliers_are_those_put_in(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(1.4, 0.1, 300))
    values[[5, 50]] = [12.0, 20.0]
    limits = outlier_limits(values, RESOLUTION, 5.0)
    assert np.flatnonzero(values > limits.high).tolist() == [5, 50]
    assert limits.low == -np.inf  # a better fit is no fault
    assert outlier_limits(1.0 / values, MERIT, 5.0).low == pytest.approx(1.0 / limits.high)


def test_too_few_or_all_alike_have_no_outliers() -> None:
    assert not outlier_limits(np.array([1.0, 1.1, 50.0]), RESOLUTION, 4.0).are_set
    assert not outlier_limits(np.ones(40), RESOLUTION, 4.0).are_set
    assert not outlier_limits(np.full(40, np.nan), RESOLUTION, 4.0).are_set


def test_negative_values_are_not_taken_as_logarithms() -> None:
    ice = np.random.default_rng(1).normal(0.0, 0.02, 100)
    ice[7] = 0.4
    limits = outlier_limits(ice, Quantity("ice_ring", "ice ring", "", "high"), 5.0)
    assert np.flatnonzero(ice > limits.high).tolist() == [7]


def test_limits_narrow() -> None:
    both = Limits(low=1.0).narrowed(Limits(high=5.0)).narrowed(Limits(0.0, 7.0))
    assert (both.low, both.high) == (1.0, 5.0)
