"""The search around one place, against the kernel's correlations there."""

from __future__ import annotations

import torch

from vitreous.core.rotations import angular_distance, euler_to_matrix
from vitreous.kernels.correlate import correlation
from vitreous.methods.matching.local import local_search, nearby_angles
from vitreous.methods.matching.match import MatchSettings, prepare_search


def test_nearby_angles_fill_a_ball() -> None:
    centre = torch.tensor([30.0, 60.0, 300.0])
    angles = nearby_angles(centre, 2.0, 4.0)
    pose = euler_to_matrix(*centre.double()).expand(len(angles), 3, 3)
    distance = angular_distance(euler_to_matrix(*angles.unbind(1)), pose)
    assert len(angles) == 33  # lattice points within two steps
    assert float(distance.max()) <= 4.0 + 1e-6 and float(distance.min()) < 1e-6


def test_the_best_nearby_is_the_best_of_all_correlations(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    image = torch.from_numpy(molecule.micrograph((100, 90), lens, [(50, 44, (30.0, 60.0, 300.0), 200.0)], snr=0.3))
    settings = MatchSettings(180.0, 90.0, defocus_min=-200.0, defocus_max=200.0)
    search = prepare_search(image, molecule.volume(), lens, settings)
    angles = nearby_angles(torch.tensor([33.0, 62.0, 298.0]), 5.0, 5.0)
    found = local_search(search.image.pixels, search.maker, (25, 22), angles, 3)
    maps = torch.stack([correlation(search.image.pixels, one) for one in search.maker(angles)])[:, 22:29, 19:26]
    index = int(maps.argmax())
    row, place = divmod(index, 49)
    assert abs(found.score - float(maps.max())) < 1e-4
    assert found.position == (22 + place // 7, 19 + place % 7)
    assert found.plane == row % 3
    torch.testing.assert_close(found.angles, angles[row // 3])


def test_windows_end_at_the_border(molecule, lens) -> None:  # type: ignore[no-untyped-def]
    image = torch.randn(60, 60, generator=torch.Generator().manual_seed(4))
    search = prepare_search(
        image, molecule.volume(), lens, MatchSettings(180.0, 90.0, defocus_min=0.0, defocus_max=0.0)
    )
    found = local_search(search.image.pixels, search.maker, (12, 0), torch.zeros(1, 3), 4)
    assert 8 <= found.position[0] <= 12 and 0 <= found.position[1] <= 4
