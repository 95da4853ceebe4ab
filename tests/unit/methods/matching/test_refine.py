"""Refinement of hits, template optimisation and constrained search against the truth of a simulated micrograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.rotations import angular_distance, euler_to_matrix
from vitreous.methods.matching.constrained import Neighbour, expected_position, search_beside
from vitreous.methods.matching.filters import Filters, prepare_micrograph
from vitreous.methods.matching.local import Field, Place, nearby_angles, window_correlations
from vitreous.methods.matching.optimise import scan_b_factor, scan_scale
from vitreous.methods.matching.refine import RefineSettings, refine_place
from vitreous.methods.matching.transfer import Lens

TRUTH = [
    (60, 70, (33.0, 61.0, 127.0), -170.0),
    (150, 60, (200.0, 95.0, 12.0), 130.0),
    (100, 170, (80.0, 140.0, 300.0), 40.0),
]


def field_of(molecule, lens: Lens, snr: float = 2.0, particles=TRUTH, density=None) -> Field:  # type: ignore[no-untyped-def]
    image = torch.from_numpy(molecule.micrograph((224, 240), lens, particles, snr=snr))
    prepared = prepare_micrograph(image, Filters())
    volume = molecule.volume() if density is None else density
    return Field.of(prepared.image, volume, lens, prepared.whitening, Filters())


def angle_between(a: torch.Tensor, b: tuple[float, float, float]) -> float:
    truth = euler_to_matrix(*(torch.tensor(v, dtype=torch.float64) for v in b))
    return float(angular_distance(euler_to_matrix(*a.double().unbind()), truth))


def spread(field: Field, place: Place) -> float:
    """Root of the summed variances of three small rotations and a shift told from the noise, degrees.

    The inverse of the Fisher information c^2 <d_i, d_j> of a template of norm 1 seen c deviations high (Cramer-Rao):
    no unbiased method does better, and a search that finds the maximum does as well. Defocus is taken as known.
    """
    high = place.correlation / float(field.image[185:, 110:].std())  # no molecule there
    maker = field.maker(torch.tensor([place.defocus]))
    template = maker(place.angles[None])[0]
    lattice = nearby_angles(place.angles, 1.0, 1.0)
    turned = maker(lattice)
    vectors = [i for i, one in enumerate(lattice) if angle_between(one, tuple(place.angles.tolist())) > 0.5]
    pairs = [(vectors[i], vectors[-1 - i]) for i in range(3)]  # the lattice is symmetric: opposite rotations
    slopes = [(turned[a] - turned[b]) / 2.0 for a, b in pairs]
    slopes += [(torch.roll(template, 1, axis) - torch.roll(template, -1, axis)) / 2.0 for axis in (0, 1)]
    flat = torch.stack(slopes).reshape(5, -1).double()
    return float((torch.linalg.inv(high**2 * flat @ flat.T).diagonal()[:3]).sum().sqrt())


def test_nearby_angles_are_near_and_even() -> None:
    centre = torch.tensor([30.0, 50.0, 70.0], dtype=torch.float64)
    nearby = nearby_angles(centre, 2.0, 4.0)
    distances = [angle_between(one, (30.0, 50.0, 70.0)) for one in nearby]
    assert max(distances) <= 4.0 + 1e-6 and min(distances) < 1e-6
    assert len(nearby) == 33  # lattice points within two steps


def test_window_correlations_are_the_definition(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    field = field_of(molecule, lens)
    maker = field.maker(torch.tensor([0.0, 300.0]))
    angles = torch.tensor([[10.0, 20.0, 30.0], [50.0, 60.0, 70.0]])
    values, corner = window_correlations(field.image, maker, (1, 30), angles, 2)
    assert corner == (0, 28) and values.shape == (2, 2, 4, 5)
    template = maker(angles).reshape(2, 2, 48, 48)[1, 0]
    assert float(values[1, 0, 3, 4]) == pytest.approx(float((field.image[3:51, 32:80] * template).sum()), abs=1e-4)


@pytest.mark.parametrize("snr", [2.0, 20.0])
def test_refinement_comes_to_the_truth(snr: float, molecule, lens) -> None:  # type: ignore[no-untyped-def]
    field = field_of(molecule, lens, snr)
    settings = RefineSettings(3.0, 0.25, defocus_range=200.0, defocus_step=20.0)
    for y, x, angles, defocus in TRUTH:
        off = nearby_angles(torch.tensor(angles), 2.0, 3.5)[0]
        start = Place((y - 24 + 1, x - 24 - 2), off, 100.0 * round(defocus / 100.0))
        found = refine_place(field, start, settings)
        assert found.place.position == (y - 24, x - 24)
        # The bound is what noise allows, three times, and the last step.
        statistical = spread(field, found.place)
        assert statistical < 1.5
        assert snr < 20.0 or angle_between(found.place.angles, angles) < 0.6
        assert snr < 20.0 or abs(found.place.defocus - defocus) <= 60.0
        assert angle_between(found.place.angles, angles) < min(
            3.0 * statistical + 0.25, 0.5 * angle_between(off, angles)
        )
        assert found.place.correlation > found.start
        assert max(map(abs, found.shift)) < 0.3


def test_refinement_finds_each_pixel_size(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    """The template is 2% too large."""
    y, x, angles, defocus = TRUTH[0]
    larger = type(molecule)(molecule.atoms * 1.02, molecule.box, molecule.sigma * 1.02)
    # At an SNR of 2 noise alone moves one molecule's scale by a hundredth; the job's test has the mean of several.
    field = field_of(molecule, lens, snr=20.0, density=larger.volume())
    settings = RefineSettings(1.0, 0.25, defocus_range=0.0, pixel_range=0.04, pixel_step=0.005)
    found = refine_place(field, Place((y - 24, x - 24), torch.tensor(angles), defocus), settings)
    assert found.place.scale == pytest.approx(1.0 / 1.02, abs=0.006)


def test_optimised_pixel_size_and_b_factor(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    blurred = Lens(lens.pixel_size, lens.microscope, lens.defocus_u, lens.defocus_v, lens.defocus_angle, b_factor=60.0)
    larger = type(molecule)(molecule.atoms * 1.02, molecule.box, molecule.sigma * 1.02)
    image = torch.from_numpy(molecule.micrograph((224, 240), blurred, TRUTH, snr=4.0))
    prepared = prepare_micrograph(image, Filters())
    places = [Place((y - 24, x - 24), torch.tensor(a), d) for y, x, a, d in TRUTH]
    field = Field.of(prepared.image, larger.volume(), lens, prepared.whitening, Filters())
    scales = scan_scale([(field, places)], np.linspace(0.95, 1.05, 11))
    assert scales.best == pytest.approx(1.0 / 1.02, abs=0.004)
    right = Field.of(prepared.image, molecule.volume(), lens, prepared.whitening, Filters())
    b_factors = scan_b_factor([(right, places)], np.linspace(0.0, 160.0, 9))
    assert b_factors.best == pytest.approx(60.0, abs=25.0)


def test_a_neighbour_is_found_where_it_must_be(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    """The second molecule is a part of the first, cut out and centred: its offset is known."""
    y, x, angles, defocus = TRUTH[0]
    offset_px = np.array([6.0, -4.0, 3.0])
    part = type(molecule)(molecule.atoms - offset_px, 64, molecule.sigma)
    field = field_of(molecule, lens, density=part.volume())
    first = Place((y - 24, x - 24), torch.tensor(angles), defocus)
    neighbour = Neighbour(tuple(offset_px * lens.pixel_size), reach=4, defocus_range=100.0, defocus_step=50.0)
    found = search_beside(field, first, neighbour, 48)
    assert found is not None and found.z > 6.0
    pose = euler_to_matrix(*(torch.tensor(v, dtype=torch.float64) for v in angles)).numpy()
    moved = pose @ offset_px
    truth = (y + moved[1] - 32, x + moved[0] - 32)
    assert max(abs(found.place.position[0] - truth[0]), abs(found.place.position[1] - truth[1])) <= 1.0
    # Half a pixel of position is worth 2.2 degrees at a radius of 13 pixels; the lattice is 2 degrees wide.
    assert angle_between(found.place.angles, angles) <= 2.2 + 1.8
    at = expected_position(first, neighbour, (48, 64), lens.pixel_size)
    assert max(abs(at[0] - truth[0]), abs(at[1] - truth[1])) <= 0.5 + 1e-6
    far = Place((0, 0), torch.tensor(angles), 0.0)
    assert search_beside(field, far, Neighbour((-900.0, -900.0, 0.0)), 48) is None
