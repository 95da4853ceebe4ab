from __future__ import annotations

import pytest
import torch

from vitreous.methods.motion.spectra import Band
from vitreous.methods.motion.trajectories import Parameters, Prior, Problem, _inverse, fit

SHAPE = (64, 64)


@pytest.fixture
def drifting(generator: torch.Generator) -> tuple[Problem, torch.Tensor]:
    """One noisy image in six frames of two patches, displaced alike; the displacements (f, 2) px."""
    band = Band(SHAPE, SHAPE)
    moved = torch.cumsum(0.6 * torch.randn(6, 2, generator=generator, dtype=torch.float64), 0)
    angle = 2 * torch.pi * (band.ky[:, None] * moved[:, 1, None, None] + band.kx * moved[:, 0, None, None])
    images = torch.randn(2, 1, *SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 6, *SHAPE, generator=generator, dtype=torch.float64)
    frames = torch.fft.rfft2(images) * torch.polar(torch.ones_like(angle), -angle) + torch.fft.rfft2(noise)
    none = torch.zeros(2, 6, 0, dtype=torch.float64)
    return Problem(frames.to(torch.complex64), band.weights(60.0, 1.0), band, none), moved


def test_a_fit_that_foretells_its_end_is_where_a_long_one_ends(drifting):
    problem, moved = drifting
    start, weak = Parameters.zero(6, 0), Prior(acceleration=20.0)
    short = fit(problem, start, weak, tolerance=0.05)
    long = fit(problem, start, weak, tolerance=1e-6, iterations=30)
    assert short.iterations < long.iterations
    assert (short.parameters.frames - long.parameters.frames).abs().max() < 0.01
    found = long.parameters.frames - long.parameters.frames[0]
    assert (found - (moved - moved[0])).abs().max() < 0.25


def test_a_step_goes_uphill_where_the_curvature_has_the_wrong_sign(generator):
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    curved = torch.tensor([3.0, -2.0, 1.0, 1e-9], dtype=torch.float64)
    wanted = (turn / torch.tensor([3.0, 2.0, 1.0, 0.03])) @ turn.T
    assert torch.allclose(_inverse((turn * curved) @ turn.T, 0.01), wanted)
    positive = (turn * torch.tensor([3.0, 2.0, 1.0, 0.5])) @ turn.T
    assert torch.allclose(_inverse(positive, 0.9) @ positive, torch.eye(4, dtype=torch.float64))
