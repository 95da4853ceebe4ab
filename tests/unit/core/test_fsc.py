from __future__ import annotations

import torch

from vitreous.core.fsc import fsc, fsc_resolution, resolution_shell


def test_a_map_agrees_with_itself_and_not_with_noise(generator):
    a = torch.randn(24, 24, 24, generator=generator)
    b = torch.randn(24, 24, 24, generator=generator)
    assert torch.allclose(fsc(a, a), torch.ones(13, dtype=torch.float64))
    assert fsc(a, b)[4:].abs().max() < 0.3


def test_resolution_is_the_last_shell_above():
    curve = torch.tensor([1.0, 0.9, 0.8, 0.2, 0.1, 0.5])
    assert resolution_shell(curve) == 3
    assert fsc_resolution(curve, 10, 1.5) == 5.0
