from __future__ import annotations

import numpy as np
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import from_shells, shell_mean, to_fourier, to_real
from vitreous.core.masks import soft_sphere
from vitreous.data.images import ArraySource
from vitreous.methods.refinement.auto_refine import start
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions, split_halves
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.solvent import flatten_solvent, mask_then_filter

BOX, KNOWN = 32, 6
SHELLS = torch.arange(BOX // 2 + 1)
MASK = soft_sphere(BOX, 6.0, edge=3.0, ndim=3, dtype=torch.float64)


def white(generator):
    return torch.randn(BOX, BOX, BOX, generator=generator, dtype=torch.float64)


def filtered(density, gain):
    return to_real(to_fourier(density, 3) * from_shells(gain, BOX, 3), density.shape, 3)


def power(density):
    return shell_mean(to_fourier(density, 3).abs().square(), BOX, 3)


def test_it_is_masked_before_it_is_damped(generator):
    density = filtered(white(generator), torch.ones(BOX // 2 + 1))  # nothing in the corners of Fourier space
    gain = torch.linspace(0.999, 0.2, BOX // 2 + 1, dtype=torch.float64)
    result = mask_then_filter(filtered(density, gain), MASK, gain)
    assert torch.allclose(result, filtered(density * MASK, gain), atol=1e-12)


def test_a_mask_carries_nothing_to_shells_that_are_not_known(generator):
    gain = torch.where(SHELLS <= KNOWN, 0.999, 0.001).to(torch.float64)
    density = filtered(white(generator), (SHELLS <= KNOWN).to(torch.float64))
    carried = power(flatten_solvent(density, 1.0, 20.0, MASK))[KNOWN + 1]
    assert carried > 0.05 * power(density * MASK)[KNOWN]
    assert power(mask_then_filter(density, MASK, gain))[KNOWN + 1] < 2e-6 * carried


def test_the_first_reference_ends_where_its_low_pass_does_in_any_mask(generator):
    n, nothing = 8, torch.zeros(8, dtype=torch.float64)
    defocus = Defocus(nothing, nothing, nothing, nothing)
    images = ArraySource(torch.randn(n, BOX, BOX, generator=generator), 4.0)
    particles = ParticleSet(images, np.zeros(n, np.int64), (Microscope(300.0, 2.7, 0.1),), defocus, False)
    for mask in (MASK, (MASK > 0.5).to(torch.float64)):
        options = AutoRefineOptions(
            "C1", 0.75 * BOX * 4.0, ini_high=BOX * 4.0 / KNOWN, absolute_grey=True, mask=mask.float()
        )
        state = start(particles, Poses.unknown(n), split_halves(n, 1), white(generator).float(), options)
        found = power(state.halves[0].density.double())
        assert found[KNOWN - 1] > 0
        assert float(found[KNOWN + 2 :].max()) < 1e-8 * float(found[KNOWN - 1])
