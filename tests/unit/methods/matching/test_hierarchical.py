"""The search in two passes against the full one: what it finds, and that it looks at nothing else."""

from __future__ import annotations

import pytest
import torch

from vitreous.core.fourier import radius_grid
from vitreous.core.search_grid import search_orientations
from vitreous.methods.matching.filters import Filters, RadialCurve
from vitreous.methods.matching.hierarchical import Hierarchy, coarser_filters, crop_image, hierarchical_search
from vitreous.methods.matching.match import MatchSettings, match_micrograph
from vitreous.methods.matching.templates import make_templates

SETTINGS = MatchSettings(9.0, 10.0, defocus_min=-300.0, defocus_max=300.0, defocus_step=300.0)
PLAN = Hierarchy(density=4.0, sample=300, moments=20_000)
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
        particles,
        match_micrograph(image, volume, lens, SETTINGS),
        hierarchical_search(image, volume, lens, SETTINGS, PLAN),
    )


def test_the_same_molecules_with_the_same_scores(searched) -> None:  # type: ignore[no-untyped-def]
    particles, full, quick = searched
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
    _, full, quick = searched
    assert float((quick.mip - full.mip).max()) < 1e-3


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
