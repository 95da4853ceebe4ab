"""The search against brute force in float64: filters, CTF, every statistic; twins, planes, recovery of particles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Microscope
from vitreous.core.named_aberrations import Aberrations
from vitreous.core.rotations import angular_distance, euler_to_matrix
from vitreous.core.search_grid import search_orientations
from vitreous.kernels.correlate import Statistics
from vitreous.methods.matching.filters import Filters, RadialCurve
from vitreous.methods.matching.match import (
    MatchSettings,
    Progress,
    match_micrograph,
    new_statistics,
    pilot_cuts,
    prepare_search,
    run_search,
    search_stretch,
    stretch_of,
)
from vitreous.methods.matching.peaks import find_peaks
from vitreous.methods.matching.search import finish
from vitreous.methods.matching.transfer import Lens, defocus_planes, transfer_planes

FILTERS = {
    "power": Filters(),
    "amplitude": Filters(whiten="amplitude", n_bins=30),
    "none": Filters(whiten=""),
    "band": Filters(low=0.03, high=0.3, falloff=0.02),
    "curve": Filters(curve=RadialCurve(np.array([0.0, 0.2, 0.5]), np.array([0.2, 1.0, 0.3]))),
    "random": Filters(randomise_from=0.2),
}


def brute_force(image: np.ndarray, volume: torch.Tensor, lens: Lens, settings: MatchSettings) -> dict[str, np.ndarray]:
    """All correlations one by one in float64, from the same filters; every statistic as defined."""
    search = prepare_search(torch.from_numpy(image), volume, lens, settings, dtype=torch.float64)
    angles, planes = search.orientations.angles, search.planes
    templates = search.maker(angles).numpy()
    box = templates.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(search.image.pixels.numpy(), (box, box))
    maps = np.stack([np.einsum("yxij,ij->yx", windows, template) for template in templates])
    best = maps.argmax(0)
    mean, variance = maps.mean(0), maps.var(0)
    return {
        "mip": maps.max(0),
        "mean": mean,
        "variance": variance,
        "scaled_mip": (maps.max(0) - mean) / np.sqrt(variance),
        "phi": angles[best // len(planes), 0].numpy(),
        "theta": angles[best // len(planes), 1].numpy(),
        "psi": angles[best // len(planes), 2].numpy(),
        "relative_defocus": planes[best % len(planes)].numpy(),
    }


@pytest.fixture(scope="module")
def image(molecule, lens):  # type: ignore[no-untyped-def]
    return molecule.micrograph((103, 96), lens, [(40, 50, (30.0, 60.0, 90.0), 0.0)], snr=0.1)


@pytest.mark.parametrize("name", FILTERS)
def test_every_statistic_equals_brute_force(name: str, molecule, lens, image) -> None:  # type: ignore[no-untyped-def]
    settings = MatchSettings(60.0, 60.0, defocus_min=-200.0, defocus_max=200.0, filters=FILTERS[name])
    truth = brute_force(image, molecule.volume(), lens, settings)
    maps = match_micrograph(torch.from_numpy(image), molecule.volume(), lens, settings)
    assert maps.n_correlations == 3 * len(settings.orientations())
    for key, atol in (("mip", 1e-4), ("mean", 1e-5), ("variance", 1e-4), ("scaled_mip", 5e-4)):
        np.testing.assert_allclose(getattr(maps, key).numpy(), truth[key], atol=atol, rtol=1e-4, err_msg=key)
    for key in ("phi", "theta", "psi", "relative_defocus"):
        assert (np.abs(getattr(maps, key).numpy() - truth[key]) < 1e-3).mean() > 0.999, key


def test_variance_is_a_variance(molecule, lens, image) -> None:  # type: ignore[no-untyped-def]
    """Leopard-EM 1.3.0 writes the deviation under that name, and its refinement takes the root again."""
    maps = match_micrograph(torch.from_numpy(image), molecule.volume(), lens, MatchSettings(60.0, 60.0))
    expected = (maps.mip - maps.mean) / maps.variance.sqrt()
    torch.testing.assert_close(maps.scaled_mip, expected, atol=1e-4, rtol=1e-4)


def test_odd_aberrations_search_without_twins(molecule, image) -> None:  # type: ignore[no-untyped-def]
    microscope = Microscope(300.0, 2.7, 0.07)
    tilted = Lens(2.0, microscope, 6000.0, 6000.0, aberrations=Aberrations(beam_tilt=(2.0, -1.0), odd={"Z33c": 300.0}))
    settings = MatchSettings(90.0, 90.0, defocus_min=0.0, defocus_max=0.0)
    truth = brute_force(image, molecule.volume(), tilted, settings)
    maps = match_micrograph(torch.from_numpy(image), molecule.volume(), tilted, settings)
    np.testing.assert_allclose(maps.mip.numpy(), truth["mip"], atol=1e-4)
    straight = match_micrograph(
        torch.from_numpy(image), molecule.volume(), Lens(2.0, microscope, 6000.0, 6000.0), settings
    )
    assert float((maps.mip - straight.mip).abs().max()) > 0.1


def test_magnification_matrix_reaches_templates_and_ctf(molecule) -> None:  # type: ignore[no-untyped-def]
    """Leopard-EM 1.3.0 drops it in its distributed path."""
    stretched = Aberrations(magnification=((1.05, 0.0), (0.0, 0.95)))
    microscope = Microscope(300.0, 2.7, 0.07)
    settings = MatchSettings(angles=torch.tensor([[0.0, 0.0, 0.0]]), defocus_min=0.0, defocus_max=0.0)
    image = torch.randn(96, 96, generator=torch.Generator().manual_seed(2))
    plain, other = (
        prepare_search(image, molecule.volume(), Lens(2.0, microscope, 6000.0, 6000.0, aberrations=a), settings)
        for a in (Aberrations(), stretched)
    )
    torch.testing.assert_close(
        other.maker.coordinates * torch.tensor([1 / 0.95, 1 / 1.05]), plain.maker.coordinates, check_dtype=False
    )
    assert float((other.maker.transfer - plain.maker.transfer).abs().max()) > 0.1


def test_particles_are_found_with_their_pose_and_defocus(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    grid = search_orientations(30.0, 36.0)
    chosen = [grid[i] for i in (17, 133, 260)]
    truth = [
        (60, 70, chosen[0], -600.0), (150, 60, chosen[1], 0.0), (100, 170, chosen[2], 600.0)
    ]  # fmt: skip
    particles = [(y, x, tuple(float(v) for v in a), d) for y, x, a, d in truth]
    image = molecule.micrograph((224, 240), lens, particles, snr=0.6)
    settings = MatchSettings(angles=grid, defocus_min=-600.0, defocus_max=600.0, defocus_step=600.0)
    maps = match_micrograph(torch.from_numpy(image), molecule.volume(), lens, settings)
    peaks = find_peaks(maps.mip.numpy(), 0.0, 24.0)  # so small a search has no background to make z-scores of
    for y, x, angles, defocus in truth:
        off = np.abs(peaks.positions - np.array([y - 24, x - 24])).max(1)
        assert off[:3].min() <= 1  # the three highest peaks are the three particles
        at = tuple(peaks.positions[off.argmin()])
        found = euler_to_matrix(*(angle[at].double() for angle in (maps.phi, maps.theta, maps.psi)))
        assert float(angular_distance(found, euler_to_matrix(*angles.double()))) < 0.1
        assert float(maps.relative_defocus[at]) == defocus


def test_the_pixel_size_is_searched(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    """A template 4% too large: its voxels are smaller than assumed; the statistics are of all scales together."""
    particle = (70, 80, (30.0, 60.0, 90.0), 0.0)
    image = torch.from_numpy(molecule.micrograph((150, 160), lens, [particle], snr=2.0))
    larger = type(molecule)(molecule.atoms * 1.04, molecule.box, molecule.sigma * 1.04).volume()
    angles = torch.tensor([[30.0, 60.0, 90.0], [30.0, 60.0, 270.0], [80.0, 20.0, 10.0]])
    scales = (1.0 / 1.08, 1.0 / 1.04, 1.0)
    settings = MatchSettings(angles=angles, defocus_min=-300.0, defocus_max=300.0, defocus_step=300.0, scales=scales)
    maps = match_micrograph(image, larger, lens, settings)
    assert maps.n_correlations == 27 and maps.scale is not None
    at = (70 - 24, 80 - 24)
    assert float(maps.scale[at]) == pytest.approx(1.0 / 1.04)
    assert float(maps.relative_defocus[at]) == 0.0 and float(maps.psi[at]) == 90.0
    each = [
        match_micrograph(image, larger, lens, MatchSettings(
            angles=angles, defocus_min=-300.0, defocus_max=300.0, defocus_step=300.0, scales=(scale,)))
        for scale in scales
    ]  # fmt: skip
    torch.testing.assert_close(maps.mip, torch.stack([one.mip for one in each]).max(0).values, atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.mean, torch.stack([one.mean for one in each]).mean(0), atol=1e-4, rtol=0)


def test_trimmed_moments_do_not_feel_the_particle(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    """In a small search the particle itself raises mean and deviation; its z-score falls though its MIP is high."""
    particle = (70, 80, (30.0, 60.0, 90.0), 0.0)
    image = torch.from_numpy(molecule.micrograph((150, 160), lens, [particle], snr=0.5))
    near = torch.tensor(
        [[30.0 + a, 60.0 + b, 90.0 + c] for a in range(-8, 9, 4) for b in (-4, 0, 4) for c in (-4, 0, 4)]
    )
    angles = torch.cat([near, search_orientations(60.0, 60.0)[:60].to(near.dtype)])
    plain, robust = (
        match_micrograph(
            image, molecule.volume(), lens,
            MatchSettings(angles=angles, defocus_min=0.0, defocus_max=0.0, trimmed=trimmed),
        )
        for trimmed in (False, True)
    )  # fmt: skip
    at = (70 - 24, 80 - 24)
    assert float(robust.scaled_mip[at]) > 2.0 * float(plain.scaled_mip[at])
    quiet = np.s_[0:20, 0:20]
    difference = (robust.mean - plain.mean)[quiet].abs()
    ratio = (robust.variance / plain.variance)[quiet]
    assert float(difference.median()) < 0.1 and abs(float(ratio.median()) - 1.0) < 0.15


def test_blocks_and_resumed_blocks_are_the_same_bits(molecule, lens, image) -> None:  # type: ignore[no-untyped-def]
    settings = MatchSettings(45.0, 45.0, defocus_min=0.0, defocus_max=0.0)
    search = prepare_search(torch.from_numpy(image), molecule.volume(), lens, settings)
    whole = run_search(search, settings, memory=0.0)
    stopped: list[dict[str, np.ndarray]] = []
    state: list[tuple[int, int]] = []

    class Stop(Exception):
        pass

    def stop(progress, blocks):  # type: ignore[no-untyped-def]
        if progress.next_block == 2:
            stopped.append({name: np.array(value) for name, value in progress.statistics.arrays().items()})
            state.append((progress.next_block, progress.size))
            raise Stop

    with pytest.raises(Stop):
        run_search(search, settings, memory=0.0, after_block=stop)
    resumed = run_search(search, settings, progress=Progress(Statistics.from_arrays(stopped[0]), *state[0]))
    for name, value in whole.arrays().items():
        np.testing.assert_array_equal(resumed.arrays()[name], value, err_msg=name)


@pytest.mark.parametrize("trimmed", [False, True])
def test_stretches_merge_to_the_whole(trimmed: bool, molecule, lens, image) -> None:  # type: ignore[no-untyped-def]
    settings = MatchSettings(60.0, 60.0, defocus_min=-200.0, defocus_max=200.0, trimmed=trimmed)
    search = prepare_search(torch.from_numpy(image), molecule.volume(), lens, settings)
    cut = pilot_cuts(search) if trimmed else None
    whole = run_search(search, settings, progress=Progress(new_statistics(search, cut), 0, 5))
    total = len(search.orientations.blocks(5))
    for parts in (1, 3, total + 2):  # the last leaves some with nothing to do
        stretches = [stretch_of(0, total, part, parts) for part in range(parts)]
        assert [block for stretch in stretches for block in stretch] == list(range(total))
        merged = new_statistics(search, cut)
        for stretch in reversed(stretches):
            merged.merge(Statistics.from_arrays(search_stretch(search, 5, stretch, cut).arrays()))
        assert torch.equal(merged.maximum, whole.maximum) and torch.equal(merged.best, whole.best)
        assert merged.count == whole.count
        torch.testing.assert_close(merged.sum_squares, whole.sum_squares, rtol=1e-12, atol=0)
        if merged.trimmed is not None and whole.trimmed is not None:
            assert torch.equal(merged.trimmed.count, whole.trimmed.count)
            torch.testing.assert_close(merged.trimmed.squares, whole.trimmed.squares, rtol=1e-12, atol=0)


def test_what_is_left_is_cut_into_stretches() -> None:
    assert [stretch_of(4, 11, part, 3) for part in range(3)] == [range(4, 6), range(6, 8), range(8, 11)]


def test_planes_hold_the_micrographs_own_defocus() -> None:
    assert defocus_planes(-1200.0, 1200.0, 200.0).tolist() == [200.0 * i for i in range(-6, 7)]
    assert defocus_planes(-500.0, 500.0, 300.0).tolist() == [-500.0, -200.0, 0.0, 100.0, 400.0]
    assert defocus_planes(0.0, 0.0, 200.0).tolist() == [0.0]


def test_transfer_is_the_formula() -> None:
    lens = Lens(1.5, Microscope(300.0, 2.7, 0.07), 9000.0, 8000.0, 30.0, 10.0, 40.0, Aberrations(even={"Z44c": 500.0}))
    values = transfer_planes(64, lens, torch.tensor([-300.0, 300.0]))
    ky, kx = 7 / 64 / 1.5, 11 / 64 / 1.5
    lam = 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    k2, angle = kx * kx + ky * ky, np.arctan2(ky, kx)
    for plane, shift in enumerate((-300.0, 300.0)):
        dz = 8500.0 + shift + 500.0 * np.cos(2 * (angle - np.deg2rad(30.0)))
        chi = np.pi * lam * dz * k2 - 0.5 * np.pi * 2.7e7 * lam**3 * k2**2 + np.deg2rad(10.0) + np.arcsin(0.07)
        chi -= 500.0 * k2**2 * np.cos(4 * angle)
        assert float(values[plane, 7, 11]) == pytest.approx(-np.sin(chi) * np.exp(-10.0 * k2), abs=1e-10)


def test_a_constant_search_is_refused(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    settings = MatchSettings(90.0, 90.0)
    with pytest.raises(ValueError, match="constant"):
        prepare_search(torch.ones(96, 96), molecule.volume(), lens, settings)
    one = MatchSettings(angles=torch.zeros(1, 3), defocus_min=0.0, defocus_max=0.0)
    image = torch.randn(96, 96, generator=torch.Generator().manual_seed(1))
    search = prepare_search(image, molecule.volume(), lens, one)
    with pytest.raises(ValueError, match="do not vary"):
        finish(search.image, run_search(search, one), search.orientations.angles, search.planes)
