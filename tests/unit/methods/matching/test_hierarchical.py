"""The search in three passes against the full one: what it finds, and that it looks at nothing else."""

from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import radius_grid
from vitreous.core.rotations import euler_to_matrix
from vitreous.core.search_grid import search_orientations
from vitreous.core.symmetry import symmetric_distance
from vitreous.methods.matching.coarse import Hierarchy, coarse_planes, coarser_filters, crop_image
from vitreous.methods.matching.filters import Filters, RadialCurve
from vitreous.methods.matching.grid_neighbours import GridNeighbours
from vitreous.methods.matching.hierarchical import hierarchical_search, moments_at
from vitreous.methods.matching.match import MatchSettings, match_micrograph, prepare_search
from vitreous.methods.matching.templates import make_templates
from vitreous.methods.matching.transfer import defocus_planes

SETTINGS = MatchSettings(9.0, 10.0, defocus_min=-300.0, defocus_max=300.0, defocus_step=300.0)
PLAN = Hierarchy(kept=4.0, sample=300)
BOX = 48


def textured_ball() -> torch.Tensor:
    """A ball of noise, 28 pixels across: its projections have little in common, as those of large molecules."""
    noise = torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    grid = torch.arange(BOX) - BOX // 2
    z, y, x = torch.meshgrid(grid, grid, grid, indexing="ij")
    radius = (z * z + y * y + x * x).sqrt()
    ball = torch.where(radius < 14.0, noise, 0.0)
    return torch.fft.irfftn(torch.fft.rfftn(ball) * torch.exp(-20.0 * radius_grid((BOX, BOX, BOX)) ** 2), s=ball.shape)


@pytest.fixture(scope="module")
def searched(lens):  # type: ignore[no-untyped-def]
    """Two molecules of the fine grid in white noise, each twelve deviations high."""
    grid, volume = search_orientations(9.0, 10.0), textured_ball()
    particles = [(20, 30, grid[5234], -300.0), (80, 90, grid[14456], 300.0)]
    image = torch.randn(150, 160, generator=torch.Generator().manual_seed(6))
    for y, x, angles, defocus in particles:
        maker = make_templates(volume, lens, torch.tensor([defocus]), None, Filters(whiten=""))
        image[y : y + BOX, x : x + BOX] += 12.0 * maker(angles[None])[0]
    return (
        image,
        particles,
        match_micrograph(image, volume, lens, SETTINGS),
        hierarchical_search(image, volume, lens, SETTINGS, PLAN),
    )


def test_the_same_molecules_with_the_same_scores(searched) -> None:  # type: ignore[no-untyped-def]
    _, particles, full, quick = searched
    assert quick.n_correlations == full.n_correlations
    for y, x, angles, defocus in particles:
        at = (y, x)
        assert float(quick.mip[at]) == pytest.approx(float(full.mip[at]), abs=1e-3)
        found = torch.stack([quick.phi[at], quick.theta[at], quick.psi[at]])
        torch.testing.assert_close(found, angles.float())
        assert float(quick.relative_defocus[at]) == defocus
        assert float(quick.scaled_mip[at]) == pytest.approx(float(full.scaled_mip[at]), rel=0.05)


def test_no_correlation_is_looked_at_that_the_full_search_does_not(searched) -> None:  # type: ignore[no-untyped-def]
    """So that no noise passes a threshold that would not pass there."""
    _, _, full, quick = searched
    assert float((quick.mip - full.mip).max()) < 1e-3


def test_moments_of_all_projections_are_the_full_searchs(searched, lens) -> None:  # type: ignore[no-untyped-def]
    """One plane of each projection only: mean and variance differ by less than moves a z-score of seven by a tenth."""
    image, _, full, _ = searched
    search = prepare_search(image, textured_ball(), lens, SETTINGS)
    places = torch.tensor([[60, 20], [100, 40], [20, 100]])  # far from the molecules
    mean, variance = moments_at(search, places, 100_000)
    y, x = places.unbind(1)
    seven = full.mean[y, x] + 7.0 * full.variance[y, x].sqrt()
    assert float(((seven - mean) / variance.sqrt() - 7.0).abs().max()) < 0.1


def test_neighbours_of_a_pose_on_the_grid() -> None:
    """All that lie within reach of it or of one of its images, and no others; far from the grid, the nearest."""
    angles = search_orientations(12.0, 12.0, "O")
    grid = GridNeighbours.of(angles, "O")
    poses = euler_to_matrix(*angles.unbind(1))
    for pose in search_orientations(70.0, 50.0)[::7]:
        off = symmetric_distance(euler_to_matrix(*pose.unbind()).expand_as(poses), poses, "O")
        for reach in (15.0, 0.01):
            expected = torch.nonzero(off < reach)[:, 0] if bool((off < reach).any()) else off.argmin()[None]
            near = grid.near(pose, reach)
            assert near.tolist() == expected.tolist() or float((off[near] - off[expected[0]]).abs().max()) < 1e-3


def test_coarse_planes_are_few_and_even() -> None:
    planes = defocus_planes(-600.0, 600.0, 200.0)  # each for 100 A to either side
    assert coarse_planes(planes, 2).tolist() == [-350.0, 350.0]
    assert coarse_planes(defocus_planes(-200.0, 200.0, 200.0), 2).tolist() == [0.0]
    assert coarse_planes(planes, 1).tolist() == planes.tolist()
    assert coarse_planes(torch.zeros(1), 2).tolist() == [0.0]


def test_a_coarse_image_is_the_same_field_at_larger_pixels(generator: torch.Generator) -> None:
    y, x = torch.meshgrid(torch.arange(90.0), torch.arange(64.0), indexing="ij")
    wave = torch.cos(2 * torch.pi * (y / 12.0 + x / 16.0))
    small = crop_image(torch.nn.functional.pad(wave, (0, 0, 0, 6)), 2)
    assert small.shape == (48, 32) and float(small.std()) == pytest.approx(1.0)
    assert crop_image(wave, 2).shape == (46, 32)
    filters = coarser_filters(Filters(low=0.01, high=0.2, curve=RadialCurve(torch.tensor([0.1]).numpy(), None)), 2)  # type: ignore[arg-type]
    assert filters.low == 0.02 and filters.high == 0.4
    assert filters.curve is not None and filters.curve.frequencies[0] == pytest.approx(0.2)


def test_what_it_cannot_do_is_said(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    image = torch.randn(96, 96, generator=torch.Generator().manual_seed(2))
    with pytest.raises(ValueError, match="cannot be reduced"):
        hierarchical_search(image, torch.zeros(50, 50, 50), lens, SETTINGS)
    listed = MatchSettings(angles=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="list of angles"):
        hierarchical_search(image, molecule.volume(), lens, listed)
