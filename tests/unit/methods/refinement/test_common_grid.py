"""Images of several pixel sizes and boxes on one grid: analytic truth, noise, and one map from a divided set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.fourier import to_fourier, to_real
from vitreous.core.fsc import fsc
from vitreous.core.rotations import random_rotations
from vitreous.data.images import ArraySource
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.classify_2d import Options2D, classify_2d
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.common_grid import (
    CommonGrid,
    Distortion,
    Grid,
    GroupImages,
    choose_grid,
    highest_frequency,
)
from vitreous.methods.refinement.dataset import limits_of
from vitreous.methods.refinement.known_poses import reconstruct_particles
from vitreous.methods.refinement.particles import ParticleSet, Poses

SCOPE = Microscope(300.0, 2.7, 0.1)
COMMON = Grid(48, 3.0)


def gaussians(grid: Grid, matrix: np.ndarray | None = None) -> torch.Tensor:
    """Two blobs given in A on a grid, unit noise in mind: values grow with the pixel. matrix: from (x, y) to (x, y)."""
    axis = (torch.arange(grid.box, dtype=torch.float64) - grid.box // 2) * grid.pixel_size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    if matrix is not None:
        x, y = matrix[0, 0] * x + matrix[0, 1] * y, matrix[1, 0] * x + matrix[1, 1] * y
    first = torch.exp(-((x - 13.0) ** 2 + (y + 21.0) ** 2) / (2 * 8.0**2))
    second = 0.7 * torch.exp(-((x + 24.0) ** 2 + (y - 6.0) ** 2) / (2 * 9.0**2))
    return ((first + second) * grid.pixel_size)[None].float()


def brought(images: torch.Tensor, pixel_size: float, distortion: Distortion | None = None) -> torch.Tensor:
    source = ArraySource(images, pixel_size)
    group = GroupImages(source, np.arange(len(images)), SCOPE, distortion or Distortion())
    return CommonGrid([group], COMMON)[np.arange(len(images))]


@pytest.mark.parametrize("own", [Grid(36, 4.0), Grid(37, 3.9), Grid(64, 3.37), Grid(60, 2.1), Grid(80, 2.0)])
def test_a_density_comes_over_whatever_its_grid(own: Grid) -> None:
    """Coarser and finer, smaller and larger fields of view, odd boxes, sizes that divide nothing."""
    level = 5.0  # of a set that was not normalised
    moved = brought(gaussians(own) + level, own.pixel_size)
    expected = gaussians(COMMON) + level * COMMON.pixel_size / own.pixel_size
    torch.testing.assert_close(moved, expected, rtol=0, atol=2e-3)


def test_images_on_the_common_grid_are_left_alone(generator: torch.Generator) -> None:
    images = torch.randn(3, 48, 48, generator=generator)
    assert torch.equal(brought(images, 3.00001), images)


def test_noise_keeps_its_power_and_ends_where_the_recorded_does(generator: torch.Generator) -> None:
    own = Grid(36, 4.0)
    noise = torch.randn(300, 36, 36, generator=generator)
    power = to_fourier(brought(noise, 4.0)).abs().square().mean(0) / 48**2
    k = Coefficients.within(48, 24)
    shells = k.shell_sums(k.gather(power)) / k.shell_counts()
    last = int(highest_frequency(own, COMMON) * COMMON.extent)
    assert last == 17
    assert torch.all((shells[1 : last + 1] - 1).abs() < 0.1)
    assert float(shells[last + 1 :].max()) < 1e-10


def test_magnification_and_odd_aberrations_are_undone() -> None:
    """RELION's matrix takes an image's frequency to the specimen's, so the image's place r shows M^T r."""
    magnification = ((1.04, 0.03), (-0.01, 0.97))
    distortion = Distortion(magnification, beam_tilt=(2.0, -1.0), odd_zernike=(3.0, -2.0, 20.0, 10.0, -30.0, 5.0))
    grid = Grid(48, 3.0)
    stretched = gaussians(grid, np.linalg.inv(np.array(magnification)).T @ np.eye(2))
    moved = brought(stretched, 3.0, Distortion(magnification))
    expected = gaussians(grid)
    scale = float((moved * expected).sum() / expected.square().sum())
    assert scale == pytest.approx(np.linalg.det(magnification), abs=1e-3)
    torch.testing.assert_close(moved / scale, expected, rtol=0, atol=3e-3)
    ky, kx = (
        torch.fft.fftfreq(48, 3.0, dtype=torch.float64)[:, None],
        torch.fft.rfftfreq(48, 3.0, dtype=torch.float64),
    )
    phase = replace(distortion, magnification=Distortion.magnification).phase(SCOPE, ky, kx.expand(48, 25))
    bent = to_real(to_fourier(expected) * torch.polar(torch.ones_like(phase), phase), (48, 48)).float()
    assert float((bent - expected).abs().max()) > 0.1
    straight = brought(bent, 3.0, replace(distortion, magnification=Distortion.magnification))
    torch.testing.assert_close(straight, expected, rtol=0, atol=2e-3)


def test_the_grid_is_the_references_or_the_finest() -> None:
    grids = [Grid(64, 2.0), Grid(96, 1.5), Grid(100, 1.5)]
    assert choose_grid(grids) == Grid(100, 1.5)
    assert choose_grid(grids, Grid(64, 2.00001)) == Grid(64, 2.0)
    assert choose_grid(grids, Grid(64, 1.0)) == Grid(100, 1.5)


def simulated(n: int, coarse: Grid, generator: torch.Generator) -> tuple[torch.Tensor, ParticleSet, ParticleSet, Poses]:
    """A volume, its particles on one grid, the same with every second one recorded on another, and the true poses."""
    box, pixel_size = COMMON.box, COMMON.pixel_size
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = (torch.rand(8, 3, generator=generator, dtype=torch.float64) - 0.5) * 20
    volume = sum(torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / 5.0) for c in centres).float()
    rotations = random_rotations(n, generator)
    u = 9000 + 9000 * torch.rand(n, generator=generator, dtype=torch.float64)
    defocus = Defocus(u, u - 400, torch.full_like(u, 30.0), torch.zeros_like(u))
    coefficients = Coefficients.within(box, box // 2)
    slices = coefficients.scatter(project(prepare_volume(volume), rotations, coefficients.coordinates))
    signal_ft = slices * ctf((box, box), pixel_size, SCOPE, defocus)
    signal = to_real(signal_ft, (box, box))
    noise = 2.0 * float(signal.std())
    one = signal + noise * torch.randn(signal.shape, generator=generator)
    # What a detector of another pixel would have recorded: the same transform at its frequencies, its own noise.
    own = coarse.box
    recorded = CommonGrid([GroupImages(ArraySource(signal, pixel_size), np.arange(n), SCOPE)], coarse)[np.arange(n)]
    recorded = recorded + noise * torch.randn(n, own, own, generator=generator)
    even, odd = np.arange(0, n, 2), np.arange(1, n, 2)
    groups = [
        GroupImages(ArraySource(one[even], pixel_size), even, SCOPE),
        GroupImages(ArraySource(recorded[odd], coarse.pixel_size), odd, SCOPE),
    ]
    two = CommonGrid(groups, COMMON)
    group_of = np.arange(n) % 2
    whole = ParticleSet(ArraySource(one, pixel_size), np.zeros(n, np.int64), (SCOPE,), defocus)
    limits = limits_of(two, group_of, 2)
    divided = ParticleSet(two, group_of, (SCOPE, SCOPE), defocus, limits=limits)
    return volume, whole, divided, replace(Poses.unknown(n), rotations=rotations.numpy())


def test_a_divided_set_gives_the_same_map(generator: torch.Generator) -> None:
    volume, whole, divided, poses = simulated(400, Grid(40, 3.8), generator)
    everyone, rotations = np.arange(400), torch.from_numpy(poses.rotations)
    maps = [
        reconstruct_particles(p, everyone, rotations, torch.from_numpy(poses.origins), wiener=0.1).density
        for p in (whole, divided)
    ]
    low = int(divided.limits[1] * COMMON.extent)
    assert low == 18
    assert divided.common_shell == low
    between, truth = fsc(maps[0], maps[1]), [fsc(one, volume) for one in maps]
    # noise differs, the signal does not: each agrees with the truth as well as the other, in every shell it holds
    assert float((truth[0] - truth[1])[1 : low + 1].abs().max()) < 0.06
    assert float(between[1:10].min()) > 0.9
    scale = [float((one * volume).sum() / volume.square().sum()) for one in maps]
    assert scale[1] == pytest.approx(scale[0], rel=0.03)


def test_classification_learns_each_groups_noise(generator: torch.Generator) -> None:
    _, _, divided, _ = simulated(80, Grid(40, 3.8), generator)
    options = Options2D(2, 100.0, iterations=2, psi_step=30.0, offset_range=2.0)
    state = list(classify_2d(divided, Poses.unknown(80), options))[-1]
    low = divided.common_shell
    ratio = state.noise.sigma2[1, 3 : low + 1] / state.noise.sigma2[0, 3 : low + 1]
    assert torch.all((ratio > 0.7) & (ratio < 1.4))
    assert bool(torch.isfinite(state.references).all())
    # the norm of images that hold fewer shells is not less for that
    assert state.poses.norm[1::2].mean() == pytest.approx(state.poses.norm[::2].mean(), rel=0.05)
