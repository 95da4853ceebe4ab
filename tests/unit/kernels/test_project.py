"""Projection and back-projection: against analytic densities, and every form against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import to_fourier
from vitreous.core.rotations import euler_to_matrix, random_rotations
from vitreous.kernels import backproject as bp
from vitreous.kernels import project as pr

BOX = 32
FORMS = [
    (torch.device("cpu"), torch.float64),
    (torch.device("cpu"), torch.float32),
    pytest.param(
        (torch.device("cuda"), torch.float32),
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


def disc(radius, half=True):
    axis = torch.arange(-radius, radius + 1)
    ky, kx = torch.meshgrid(axis, axis, indexing="ij")
    keep = (ky**2 + kx**2 <= radius**2) & ((kx >= 0) | (not half))
    return torch.stack([ky[keep], kx[keep]], -1).to(torch.float64)


# Three Gaussian blobs off the centre: positions (x, y, z) and width in voxels.
BLOBS = torch.tensor([[5.0, 2.0, -3.0], [-4.0, 6.0, 1.0], [0.0, -5.0, 4.0]], dtype=torch.float64)
WIDTH = 1.6


def blob_volume():
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return sum(torch.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / (2 * WIDTH**2)) for p in BLOBS)


def blob_projection_ft(rotations, coordinates):
    """Analytic transform of the blobs seen at each pose: blobs move to A p, their Gaussian keeps its shape."""
    seen = torch.einsum("nij,pj->npi", rotations, BLOBS)[..., :2]  # image (x, y)
    phase = -2 * torch.pi / BOX * torch.einsum("npi,mi->npm", seen, coordinates.flip(1))
    k2 = (coordinates / BOX).square().sum(1)
    envelope = (2 * torch.pi * WIDTH**2) ** 1.5 * torch.exp(-2 * torch.pi**2 * WIDTH**2 * k2)
    return torch.polar(torch.ones_like(phase), phase).sum(1) * envelope


@pytest.mark.parametrize(("padding", "tolerance"), [(1, 0.15), (2, 0.02)])
def test_slices_are_the_analytic_projections(padding, tolerance, generator):
    rotations, coordinates = random_rotations(8, generator), disc(BOX // 2 - 1, half=False)
    volume = pr.prepare_volume(blob_volume(), padding, dtype=torch.float64)
    ours, truth = pr.project(volume, rotations, coordinates), blob_projection_ft(rotations, coordinates)
    assert float((ours - truth).norm() / truth.norm()) < tolerance


def test_direction_of_rotation():
    # tilt 90: the view along +x, so z of the volume becomes -x of the image (A's first row is -z).
    rotation = euler_to_matrix(*torch.tensor([[0.0, 90.0, 0.0]], dtype=torch.float64).unbind(-1))
    coordinates = disc(6)
    ours = pr.project(pr.prepare_volume(blob_volume(), dtype=torch.float64), rotation, coordinates)[0]
    image = blob_volume().sum(2).flip(0).roll(1, 0).T  # sum along x; axes (z, y) -> (y, -z)
    ky, kx = coordinates.to(torch.int64).unbind(1)
    truth = to_fourier(image)[ky, kx]
    # Not equal: here every point falls on the grid, where the correction for interpolation is too much.
    assert inner(ours, truth) / float(ours.norm() * truth.norm()) > 0.9995


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padding", [1, 2])
def test_forms_agree(form, padding, generator):
    device, dtype = form
    density = torch.randn(BOX, BOX, BOX, generator=generator, dtype=torch.float64)
    rotations, coordinates = random_rotations(20, generator), disc(14, half=False)
    volume = pr.prepare_volume(density.to(device), padding, 12, dtype=dtype)
    ours = pr.project(volume, rotations, coordinates).cpu()
    truth = pr.reference.project(pr.prepare_volume(density, padding, 12, dtype=torch.float64), rotations, coordinates)
    assert float((ours - truth).norm() / truth.norm()) < 2e-5
    assert bool((ours[:, coordinates.norm(dim=1) > 12.001] == 0).all())


@pytest.mark.parametrize("form", FORMS)
def test_forms_agree_2d(form, generator):
    device, dtype = form
    images = torch.randn(3, BOX, BOX, generator=generator, dtype=torch.float64)
    angles, coordinates = torch.rand(7, generator=generator, dtype=torch.float64) * 360, disc(14, half=False)
    prepared = pr.prepare_images(images.to(device), 2, dtype=dtype)
    truth = pr.reference.project_2d(pr.prepare_images(images, 2, dtype=torch.float64), angles, coordinates)
    ours = pr.project_2d(prepared, angles, coordinates).cpu()
    assert float((ours - truth).norm() / truth.norm()) < 2e-5


def test_2d_turns_as_3d_in_plane(generator):
    angles = torch.tensor([0.0, 33.0, 200.0], dtype=torch.float64)
    zero = torch.zeros_like(angles)
    coordinates = disc(10)
    slab = pr.project(
        pr.prepare_volume(blob_volume(), dtype=torch.float64), euler_to_matrix(zero, zero, angles), coordinates
    )
    images = pr.prepare_images(blob_volume().sum(0)[None], dtype=torch.float64)
    assert float((pr.project_2d(images, angles, coordinates)[0] - slab).norm() / slab.norm()) < 0.02


def inner(a, b):
    return float((a.conj() * b).real.sum())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padding", [1, 2])
def test_backprojection_is_the_adjoint(form, padding, generator):
    device, dtype = form
    rotations, coordinates = random_rotations(30, generator), disc(13, half=False)
    x = pr.prepare_volume(
        torch.randn(BOX, BOX, BOX, generator=generator, dtype=torch.float64).to(device), padding, 11, dtype=dtype
    )
    y = torch.randn(30, len(coordinates), generator=generator, dtype=torch.complex128)
    into = bp.empty_volume(BOX, padding, 11, device=device, dtype=dtype)
    bp.backproject(into, y, torch.rand(y.shape, generator=generator), rotations, coordinates)
    px = pr.project(x, rotations, coordinates).cpu().to(torch.complex128)
    scale = float(px.norm() * y.norm())
    assert abs(inner(px, y) - inner(x.data.cpu(), into.data.cpu())) < 1e-6 * scale


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_inserted_like_data(form, generator):
    device, dtype = form
    rotations, coordinates = random_rotations(30, generator), disc(13)
    weights = torch.rand(30, len(coordinates), generator=generator, dtype=torch.float64)
    into = bp.empty_volume(BOX, 2, 13, device=device, dtype=dtype)
    bp.backproject(into, weights.to(torch.complex128), weights, rotations, coordinates)
    assert torch.allclose(into.data.real, into.weight, atol=1e-4)
    assert float(into.weight.sum()) == pytest.approx(float(weights.sum()), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_2d_backprojection_is_the_adjoint(form, generator):
    device, dtype = form
    angles, coordinates = torch.rand(9, generator=generator, dtype=torch.float64) * 360, disc(13, half=False)
    images = torch.randn(2, BOX, BOX, generator=generator, dtype=torch.float64)
    x = pr.prepare_images(images.to(device), 2, 11, dtype=dtype)
    y = torch.randn(2, 9, len(coordinates), generator=generator, dtype=torch.complex128)
    into = bp.empty_images(2, BOX, 2, 11, device=device, dtype=dtype)
    bp.backproject_2d(into, y, y.abs(), angles, coordinates)
    px = pr.project_2d(x, angles, coordinates).cpu().to(torch.complex128)
    assert abs(inner(px, y) - inner(x.data.cpu(), into.data.cpu())) < 1e-6 * float(px.norm() * y.norm())


def test_odd_or_oblong_boxes_are_refused():
    with pytest.raises(ValueError, match="even"):
        pr.prepare_volume(torch.zeros(31, 31, 31))
    with pytest.raises(ValueError, match="cubic"):
        pr.prepare_volume(torch.zeros(32, 32, 30))
