"""Mini-batches: their plan, what becomes of running sums, and a classification from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import shift_images, to_fourier, to_real
from vitreous.data.images import ArraySource
from vitreous.kernels.backproject import backproject_2d, empty_images
from vitreous.kernels.project import prepare_images, project_2d
from vitreous.methods.refinement.class_average import average
from vitreous.methods.refinement.class_upkeep import donors
from vitreous.methods.refinement.classify_2d import Options2D
from vitreous.methods.refinement.classify_2d_batches import batch_plan, classify_2d_batches
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.mini_batches import BatchPlan, blend, draw
from vitreous.methods.refinement.particles import ParticleSet, Poses
from vitreous.methods.refinement.running_sums import merge, shared_with_copies, shifted, widened

BOX = 32


def test_plan_is_relions() -> None:
    plan = batch_plan(50)
    assert [plan.size(done, 400_000) for done in (0.0, 0.3, 0.8, 1.0)] == [2000, 2000, 20_000, 20_000]
    assert plan.size(0.55, 400_000) == 11_000
    assert plan.size(0.0, 10_000) == 250  # five for each class
    assert plan.size(1.0, 10_000) == 1000
    assert plan.size(1.0, 300) == 300
    assert [round(plan.step(done), 6) for done in (0.0, 0.55, 1.0)] == [0.9, 0.6, 0.3]
    assert batch_plan(5, 30, 70).size(1.0, 10_000) == 70
    assert BatchPlan().size(1.0, 10**6) == 50_000  # the initial model's


def test_batches_are_drawn_without_repeats(generator: torch.Generator) -> None:
    batch = draw(100, 40, generator)
    assert len(set(batch.tolist())) == 40
    assert bool((np.diff(batch) > 0).all())


@pytest.fixture
def sums(make_flat):
    """Sums of the true image at many angles, with room up to shell 10."""
    reference = make_flat(1, 1.0, 1).reference
    k = Coefficients.within(BOX, 10)
    angles = torch.arange(0.0, 360.0, 3.0, dtype=torch.float64)
    into = empty_images(1, BOX, 2, 10)
    turned = project_2d(prepare_images(reference, 2, BOX // 2), angles, k.coordinates)
    backproject_2d(into, turned, torch.ones(turned.shape), angles, k.coordinates)
    return into


def solve(sums) -> torch.Tensor:
    return average(sums, torch.full((BOX // 2 + 1,), 1e9, dtype=torch.float64), 1.0).image


def test_moved_sums_are_those_of_the_moved_image(sums) -> None:
    shift = torch.tensor([2.4, -1.3])
    expected = shift_images(solve(sums), shift)
    moved = solve(shifted(sums, shift))
    inner = (slice(6, -6), slice(6, -6))  # the gridding correction sits still while the image moves
    assert float((moved - expected)[inner].norm() / expected[inner].norm()) < 0.03
    back = shifted(shifted(sums, shift), -shift)
    torch.testing.assert_close(back.data, sums.data, rtol=1e-4, atol=1e-3)


def test_wider_sums_solve_to_the_same_image(sums) -> None:
    wide = widened(sums, 14)
    assert wide.max_radius == 14
    low = Coefficients.within(BOX, 9)  # at the very edge, neighbours beyond the old radius now count
    a, b = (low.gather(to_fourier(solve(one))) for one in (wide, sums))
    assert float((a - b).norm() / b.norm()) < 0.01
    total = merge([sums], [wide], [0.25])[0]
    torch.testing.assert_close(total.weight, 1.25 * wide.weight)
    assert torch.equal(merge([], [sums], [0.0])[0].data, sums.data)
    torch.testing.assert_close(blend(sums, sums, 0.5, 0.5).data, sums.data)


def test_a_copy_starts_even_with_its_donor(sums) -> None:
    other = replace(sums, data=3 * sums.data, weight=3 * sums.weight)
    distribution = torch.tensor([0.8, 0.01, 0.01, 0.18], dtype=torch.float64)
    donor_of = donors(distribution)
    assert donor_of == {1: 0, 2: 0}
    kept, share = shared_with_copies([other, sums, sums, sums], distribution, donor_of)
    assert share.tolist() == [0.2, 0.4, 0.2, 0.18]
    assert not donors(share)  # it has a chance before it is called dead again
    torch.testing.assert_close(kept[0].weight, 0.25 * other.weight)
    torch.testing.assert_close(kept[1].weight, 0.5 * other.weight)
    torch.testing.assert_close(kept[2].data, 0.25 * other.data)
    assert torch.equal(kept[3].data, sums.data)


def test_mini_batches_tell_two_kinds_apart(make_flat) -> None:
    """Each iteration sees 60 of 400; every particle has its class in the end, and a second run the same bits."""
    n = 400
    flat = make_flat(n, 0.0, 4)
    generator = torch.Generator().manual_seed(6)
    images = flat.particles.images[np.arange(n)]
    kinds = np.arange(n) % 2
    images[1::2] = images[1::2].transpose(1, 2)  # a mirror image is another image
    images = images + 0.3 * torch.randn(images.shape, generator=generator)
    particles = replace(flat.particles, images=ArraySource(images, 4.0))
    options = Options2D(4, 100.0, iterations=40, psi_step=12.0, offset_range=1.0, offset_step=1.0, seed=3)
    plan = batch_plan(4, 60, 100)
    states = list(classify_2d_batches(particles, Poses.unknown(n), options, plan))
    assert len(states) == 40
    last = states[-1]
    seen = states[0].poses.max_probability > 0
    assert int(seen.sum()) == 60
    assert bool((last.poses.max_probability > 0).all())
    table = np.zeros((4, 2))
    np.add.at(table, (last.poses.classes, kinds), 1)
    assert table.max(1).sum() / n > 0.9
    assert last.sums == ()
    assert len(states[-2].sums) == 4
    again = list(classify_2d_batches(particles, Poses.unknown(n), options, plan, states[20]))
    assert torch.equal(again[-1].references, last.references)


def _flat_kinds(n: int, n_kinds: int, generator: torch.Generator) -> ParticleSet:
    """n images of flat objects (seven blobs each), kinds in turn: turned, moved, through a CTF, at an SNR of 1/20."""
    box, wide = 48, torch.float64
    axis = torch.arange(box, dtype=wide) - box // 2
    blobs = (torch.rand(n_kinds, 7, 2, generator=generator, dtype=wide) - 0.5) * 24
    blobs -= blobs.mean(1, keepdim=True)
    distance2 = (axis[:, None] - blobs[..., 0, None, None]) ** 2 + (axis - blobs[..., 1, None, None]) ** 2
    kinds = prepare_images(torch.exp(-distance2 / (2 * 1.6**2)).sum(1).float(), 2, box // 2)
    u = 9000 + 9000 * torch.rand(n, generator=generator, dtype=wide)
    defocus = Defocus(u, u - 300, torch.zeros_like(u), torch.zeros_like(u))
    blank = ArraySource(torch.zeros(n, box, box), 4.0)
    particles = ParticleSet(blank, np.zeros(n, np.int64), (Microscope(300.0, 2.7, 0.1),), defocus)
    k = Coefficients.within(box, box // 2)
    angles = 360 * torch.rand(n, generator=generator, dtype=wide)
    packed = torch.empty(n, len(k), dtype=torch.complex64)
    for kind in range(n_kinds):
        packed[kind::n_kinds] = project_2d(kinds, angles[kind::n_kinds], k.coordinates)[kind]
    origins = (torch.rand(n, 2, generator=generator, dtype=wide) - 0.5) * 4
    packed = packed * particles.ctf(np.arange(n), k) * k.shift_phases(origins)
    images = to_real(k.scatter(packed), (box, box)).float()
    images = images + 20**0.5 * images.std() * torch.randn(images.shape, generator=generator)
    return replace(particles, images=ArraySource(images, 4.0))


@pytest.mark.slow
def test_no_class_takes_all_particles(generator: torch.Generator) -> None:
    """More classes than kinds, many particles: classes that fall behind must not starve (they did)."""
    n, n_kinds, n_classes = 6000, 6, 10
    particles = _flat_kinds(n, n_kinds, generator)
    options = Options2D(n_classes, 140.0, iterations=120, offset_range=4.0, max_significant=5000)
    *_, last = classify_2d_batches(particles, Poses.unknown(n), options, batch_plan(n_classes))
    table = np.zeros((n_classes, n_kinds))
    np.add.at(table, (last.poses.classes, np.arange(n) % n_kinds), 1)
    assert table.max(1).sum() / n > 0.95
    assert np.count_nonzero(table.sum(1) > 0.03 * n) >= n_kinds
