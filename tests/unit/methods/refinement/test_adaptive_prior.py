"""The adaptive prior: the classic one where all places are alike, better where they are not, nothing from noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vitreous.core.fourier import from_shells, shell_sum, to_fourier, to_real
from vitreous.core.fsc import fsc
from vitreous.core.masks import soft_sphere
from vitreous.core.rotations import random_rotations
from vitreous.kernels.backproject import backproject, empty_volume
from vitreous.kernels.local_signal import Band, LocalSignal
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.adaptive_prior import AdaptivePrior
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.gold_standard import signal_to_noise
from vitreous.methods.refinement.reconstruct import Reconstruction, complete, reconstruct, shell_weight
from vitreous.methods.refinement.regularise import Evidence, classic

BOX, N = 32, 400


def falling(generator, box=BOX, falloff=5.0):
    """A random map whose power falls with frequency."""
    white = torch.randn(box, box, box, generator=generator, dtype=torch.float64)
    shells = torch.arange(box // 2 + 1, dtype=torch.float64)
    return to_real(to_fourier(white, 3) * from_shells(torch.exp(-shells.square() / falloff**2), box, 3), (box,) * 3, 3)


def seen(density, noise, generator, max_shell=14):
    """Evidence from two halves of N noisy projections each, noise in units of the projections' rms."""
    halves = []
    for _ in range(2):
        rotations = random_rotations(N, generator)
        coefficients = Coefficients.within(BOX, max_shell)
        slices = project(prepare_volume(density.float(), 2, max_shell), rotations, coefficients.coordinates)
        slices += (
            noise
            * slices.abs().square().mean().sqrt().clamp(min=1.0)
            * torch.view_as_complex(torch.randn(*slices.shape, 2, generator=generator))
        )
        into = empty_volume(BOX, 2, max_shell)
        weights = torch.full(slices.shape, 0.1)
        backproject(into, slices * weights, weights, rotations, coefficients.coordinates)
        halves.append(complete(into))
    return evidence_of(halves)


def evidence_of(halves):
    maps = torch.stack([reconstruct(half) for half in halves])
    curve = fsc(maps[0], maps[1])
    curve = torch.where(torch.arange(len(curve)) <= halves[0].max_radius, curve, 0.0)
    weights = [shell_weight(half) for half in halves]
    sigma2 = tuple(torch.where(w > 0, 1 / w.clamp(min=1e-300), 0.0) for w in weights)
    tau2 = tuple(signal_to_noise(curve) * one for one in sigma2)
    return Evidence(tuple(halves), tau2, sigma2, curve, maps, Reconstruction(), 1)


def error(estimate, truth, mask=1.0):
    return float(((estimate - truth) * mask).square().sum() / (truth * mask).square().sum())


def test_signal_everywhere_alike_gives_the_classic_map(generator):
    truth = falling(generator) * soft_sphere(BOX, 13.0, edge=2.0, ndim=3, dtype=torch.float64)
    evidence = seen(truth, 2.0, generator)
    ours, plain = AdaptivePrior()(evidence)[0], classic(evidence)[0]
    inside = soft_sphere(BOX, 9.0, edge=2.0, ndim=3)
    assert float(evidence.curve[4]) > 0.9 > 0.3 > float(evidence.curve[12])  # the prior has something to do
    assert error(ours, plain, inside) < 0.01
    assert error(ours, truth, inside) < 1.1 * error(plain, truth, inside)


def test_a_core_in_empty_solvent_and_beside_a_blurred_domain(generator):
    """Both the core and the whole come out nearer to the truth than with one prior a shell."""
    z, y, x = torch.meshgrid(*[torch.arange(BOX, dtype=torch.float64) - BOX // 2] * 3, indexing="ij")
    core = falling(generator, falloff=9.0) * torch.exp(-((x**2 + (y + 4) ** 2 + z**2) / 18.0))
    domain = 2.0 * falling(generator, falloff=3.0) * torch.exp(-((x**2 + (y - 6) ** 2 + z**2) / 18.0))
    truth = core + domain
    evidence = seen(truth, 2.0, generator)
    sphere = soft_sphere(BOX, 11.0, edge=3.0, ndim=3)
    here = torch.exp(-((x**2 + (y + 4) ** 2 + z**2) / 18.0))
    ours, plain = AdaptivePrior()(evidence), classic(evidence)
    for adaptive, shellwise in zip(ours, plain, strict=True):
        assert error(adaptive, truth, sphere) < 0.65 * error(shellwise, truth, sphere)
        assert error(adaptive, truth, here) < 0.5 * error(shellwise, truth, here)


def test_noise_gives_nothing(generator):
    evidence = seen(torch.zeros(BOX, BOX, BOX), 1.0, generator)
    ours = AdaptivePrior()(evidence)
    for damped, half in zip(ours, evidence.half_maps, strict=True):
        assert float(damped.norm() / half.norm()) < 0.05


def test_next_to_no_density_crosses_between_the_halves(generator):
    """Half 2 taken from other images: half 1's map changes with how strongly it is damped, hardly with its density.

    The damping follows where the halves agree, so a share of about one over the independent values in a window
    remains: 1% in amplitude, where the half's own noise comes with some 50%.
    """
    truth = falling(generator, falloff=7.0) * soft_sphere(BOX, 8.0, edge=3.0, ndim=3, dtype=torch.float64)
    before, other = seen(truth, 2.0, generator), seen(truth, 2.0, generator)
    after = evidence_of([before.sums[0], other.sums[1]])
    mine = to_fourier((AdaptivePrior()(after)[0] - AdaptivePrior()(before)[0]).double(), 3)
    theirs = to_fourier((after.half_maps[1] - before.half_maps[1]).double(), 3)
    share = shell_sum((mine * theirs.conj()).real, BOX, 3) / shell_sum(theirs.abs().square(), BOX, 3)
    assert float(mine.abs().max()) > 0.0  # the damping did change
    assert float(share[1:15].mean()) < 0.01
    assert float(share[1:15].max()) < 0.02


def test_halves_are_treated_alike(generator):
    truth = falling(generator) * soft_sphere(BOX, 8.0, edge=3.0, ndim=3, dtype=torch.float64)
    evidence = seen(truth, 2.0, generator)
    swapped = evidence_of(list(evidence.sums[::-1]))
    first, second = AdaptivePrior()(evidence)
    again = AdaptivePrior()(swapped)
    assert torch.allclose(again[0], second, atol=1e-6 * float(second.abs().max()))
    assert torch.allclose(again[1], first, atol=1e-6 * float(first.abs().max()))


def test_whole_map_is_damped_less(generator):
    truth = falling(generator, falloff=7.0) * soft_sphere(BOX, 8.0, edge=3.0, ndim=3, dtype=torch.float64)
    evidence = seen(truth, 2.0, generator)
    one, two = evidence.sums
    both = replace(one, data=one.data + two.data, weight=one.weight + two.weight)
    sigma2 = (1.0 / (1.0 / evidence.sigma2[0] + 1.0 / evidence.sigma2[1]),)
    whole = replace(evidence, sums=(both,), sigma2=sigma2, tau2=evidence.tau2[:1], whole=True)
    joint, half = AdaptivePrior()(whole)[0], AdaptivePrior()(evidence)[0]
    assert error(joint, truth) < 0.8 * error(half, truth)
    scale = [float((one * truth).sum() / truth.square().sum()) for one in (half, joint)]
    assert scale[0] < scale[1] < 1.02


def test_fast_form_is_the_exact_one(generator):
    truth = falling(generator, falloff=7.0) * soft_sphere(BOX, 8.0, edge=3.0, ndim=3, dtype=torch.float64)
    evidence = seen(truth, 2.0, generator)
    quick, exact = AdaptivePrior()(evidence)[0], AdaptivePrior(exact=True)(evidence)[0]
    assert error(quick, exact) < 1e-5


def test_tau2_fudge_lets_more_through(generator):
    truth = falling(generator, falloff=7.0) * soft_sphere(BOX, 8.0, edge=3.0, ndim=3, dtype=torch.float64)
    evidence = seen(truth, 2.0, generator)
    loose = replace(evidence, how=Reconstruction(tau2_fudge=4.0))
    assert float(AdaptivePrior()(loose)[0].norm()) > 1.02 * float(AdaptivePrior()(evidence)[0].norm())


def test_agreement_by_chance_is_taken_off():
    band = Band(3.0, 6.0, 9.0)
    values = torch.tensor([-0.5, 0.0, 0.1, 0.2, 0.5, 0.9999])
    snr = AdaptivePrior(chance=2.0).signal_to_noise(LocalSignal(band, values, variance=0.0025))
    fsc_left = snr / (1 + snr)
    assert torch.allclose(
        fsc_left, torch.tensor([0.0, 0.0, 0.0, 0.2 - 0.01 / 0.2, 0.5 - 0.01 / 0.5, 0.9899]), atol=1e-3
    )


@pytest.mark.parametrize("max_shell", [3, 8])
def test_few_shells_are_enough(max_shell, generator):
    truth = falling(generator) * soft_sphere(BOX, 8.0, edge=3.0, ndim=3, dtype=torch.float64)
    evidence = seen(truth, 0.5, generator, max_shell)
    for density in AdaptivePrior()(evidence):
        assert bool(density.isfinite().all())
        assert float(fsc(density, truth.float())[1:max_shell].min()) > 0.9
