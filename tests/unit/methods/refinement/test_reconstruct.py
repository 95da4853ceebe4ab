from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import shell_sum, to_fourier
from vitreous.core.fsc import fsc
from vitreous.core.padded_fourier import to_density, wrap
from vitreous.core.rotations import random_rotations
from vitreous.core.symmetry import symmetry_matrices
from vitreous.kernels import backproject as bp
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement import reconstruct as rc

BOX, WIDTH = 32, 1.3


def blobs(positions, generator=None):
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return sum(torch.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / (2 * WIDTH**2)) for p in positions)


def positions(generator, n=8):
    return (torch.rand(n, 3, generator=generator, dtype=torch.float64) - 0.5) * 16


def analytic_slices(points, rotations, coordinates):
    seen = torch.einsum("nij,pj->npi", rotations, points)[..., :2]
    phase = -2 * torch.pi / BOX * torch.einsum("npi,mi->npm", seen, coordinates.flip(1))
    k2 = (coordinates / BOX).square().sum(1)
    envelope = (2 * torch.pi * WIDTH**2) ** 1.5 * torch.exp(-2 * torch.pi**2 * WIDTH**2 * k2)
    return torch.polar(torch.ones_like(phase), phase).sum(1) * envelope


def half_disc(radius):
    axis = torch.arange(-radius, radius + 1)
    ky, kx = torch.meshgrid(axis, axis, indexing="ij")
    keep = (ky**2 + kx**2 <= radius**2) & ((kx > 0) | ((kx == 0) & (ky >= 0)))
    return torch.stack([ky[keep], kx[keep]], -1).to(torch.float64)


def sums(points, n, padding, generator, radius=15):
    rotations, coordinates = random_rotations(n, generator), half_disc(radius)
    slices = analytic_slices(points, rotations, coordinates)
    acc = bp.empty_volume(BOX, padding)
    bp.backproject(acc, slices, torch.ones(slices.shape), rotations, coordinates)
    return acc


@pytest.mark.parametrize("iterations", [0, 10])
@pytest.mark.parametrize("padding", [1, 2])
def test_density_comes_back(padding, iterations, generator):
    points = positions(generator)
    acc = rc.complete(sums(points, 800, padding, generator))
    ours = rc.reconstruct(acc, options=rc.Reconstruction(gridding_iterations=iterations))
    truth = blobs(points).to(torch.float32)
    assert float(fsc(ours, truth)[1:13].min()) > 0.99
    scale = float((ours * truth).sum() / truth.square().sum())
    assert scale == pytest.approx(1.0, abs=0.03)


def test_symmetry_fills_in(generator):
    """Fewer slices, as many as the group is large: the same density."""
    group = symmetry_matrices("O")
    points = (positions(generator, 2)[:, None, None] @ group).reshape(-1, 3)
    ours = rc.reconstruct(rc.complete(sums(points, 40, 2, generator), "O"))
    assert float(fsc(ours, blobs(points).to(torch.float32))[1:12].min()) > 0.99


def test_prior_damps_each_shell_as_wiener(generator):
    """With weights w and a prior tau2 a coefficient is multiplied by w / (w + 1/tau2)."""
    acc = rc.complete(sums(positions(generator), 2000, 1, generator))
    plain = rc.reconstruct(acc)
    weight = rc.shell_weight(acc)
    damped = rc.reconstruct(acc, tau2=torch.where(weight > 0, 1.0 / weight.clamp(min=1e-9), 0.0))
    amplitude = [shell_sum(to_fourier(v, 3).abs(), BOX, 3) for v in (damped, plain)]
    ratio = (amplitude[0] / amplitude[1])[3:11]
    assert torch.allclose(ratio, torch.full_like(ratio, 0.5), atol=0.04)
    fudged = rc.reconstruct(acc, 1.0 / weight.clamp(min=1e-9), rc.Reconstruction(tau2_fudge=4.0))
    ratio = (shell_sum(to_fourier(fudged, 3).abs(), BOX, 3) / amplitude[1])[3:11]
    assert torch.allclose(ratio, torch.full_like(ratio, 0.8), atol=0.04)


@pytest.mark.parametrize("padding", [1, 2])
def test_shell_weight_counts_slices(padding, generator):
    """n uniform slices: shell r (4 pi r^2 points) is met by n circles of 2 pi r points, so n / (2 r) each."""
    weight = rc.shell_weight(rc.complete(sums(positions(generator), 500, padding, generator)))
    r = torch.arange(4, 12, dtype=torch.float64)
    assert torch.allclose(weight[4:12] * 2 * r / 500, torch.ones_like(r), atol=0.12)


def test_crop_of_the_inverse_transform(generator):
    """A prepared volume holds the oversampled transform: back to the density it was made of."""
    density = torch.randn(BOX, BOX, BOX, generator=generator)
    density = rc.finish(density, 1, True)  # empty corners
    for padding in (1, 2):
        volume = prepare_volume(density, padding, dtype=torch.float64)
        padded = padding * BOX
        in_fft_order = wrap(wrap(volume.data, 0, padded), 1, padded)[:, :, : padded // 2 + 1]
        back = rc.finish(to_density(in_fft_order, BOX).to(torch.float64), padding, False)
        envelope = rc.interpolation_envelope(BOX, padding, 3)
        assert float(fsc((back * envelope.square()).float(), density)[:14].min()) > 0.999


def test_halves_share_low_resolution_alone(generator):
    first, second = (rc.complete(sums(positions(generator), 200, 2, generator)) for _ in range(2))
    one, two = rc.join_low_resolution(first, second, 5)
    curve = fsc(rc.reconstruct(one), rc.reconstruct(two))
    assert float(curve[:5].min()) > 0.98
    assert float(curve[8:14].abs().max()) < 0.3  # two unrelated densities


def test_slices_of_the_reconstruction_are_those_put_in(generator):
    points = positions(generator)
    density = rc.reconstruct(rc.complete(sums(points, 1500, 2, generator)))
    rotations, coordinates = random_rotations(5, generator), half_disc(12)
    ours = project(prepare_volume(density), rotations, coordinates).to(torch.complex128)
    truth = analytic_slices(points, rotations, coordinates)
    assert float((ours - truth).norm() / truth.norm()) < 0.05
