from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.data.motion import grid_points, space_basis, time_basis
from vitreous.methods.motion.local_basis import in_time, local_basis

SHAPE = (300, 400)


@pytest.mark.parametrize("model", ["polynomial", "spline"])
@pytest.mark.parametrize("n_frames", [2, 5, 24])
def test_nothing_has_moved_in_the_first_frame(model, n_frames):
    values = in_time(model, n_frames, n_frames)(np.arange(n_frames))
    assert len(values) == n_frames
    assert np.allclose(values[0], 0.0)
    assert np.abs(values[1:]).max(1).min() > 0


def test_a_spline_can_be_any_cubic():
    frames = np.linspace(0.0, 23.0, 70)
    spline = in_time("spline", 24, 12)(frames)
    for power in time_basis(frames).T:
        found = spline @ np.linalg.lstsq(spline, power, rcond=None)[0]
        assert np.allclose(found, power, atol=1e-8 * power.max())


def test_a_spline_follows_a_jump_that_no_cubic_does():
    frames = np.arange(24)
    jump = np.where(frames < 3, 0.0, 1.0)
    far = []
    for model in ("polynomial", "spline"):
        values = in_time(model, 24, 12)(frames)
        far.append(np.sqrt(np.mean((values @ np.linalg.lstsq(values, jump, rcond=None)[0] - jump) ** 2)))
    assert far[1] < 0.65 * far[0]


def test_its_pieces_are_shorter_early():
    knots = in_time("spline", 40, 12).knots
    assert np.all(np.diff(np.diff(knots[3:-3])) > 0)
    assert knots[-1] == 39.0


@pytest.mark.parametrize("model", ["polynomial", "spline"])
def test_coefficients_of_unit_variance_give_motion_of_unit_mean_square(model, generator):
    centres, times = grid_points(SHAPE, 5), np.arange(12) * 2.0 + 0.5
    basis = local_basis(centres, times, SHAPE, in_time(model, 24, 12))
    assert float(basis.columns.square().sum(-1).mean()) == pytest.approx(1.0, rel=1e-6)
    # what the fit sees is what is written
    found = torch.randn(basis.columns.shape[2], 2, dtype=torch.float64, generator=generator)
    seen = torch.einsum("pfm,ma->pfa", basis.columns, found).numpy()
    space = space_basis(centres[:, 0], centres[:, 1], SHAPE)
    table = basis.coefficients(found).reshape(2, 6, -1)
    assert np.allclose(np.einsum("ps,ask,fk->pfa", space, table, basis.in_time(times)), seen)
    frames = basis.by_frame(found, 24)
    assert frames.shape == (24, 2, 6)
    assert np.allclose(frames[:, :, 0], 0.0)  # the whole field's own motion is the frames'
