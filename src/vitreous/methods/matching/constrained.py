"""A second molecule at a known place beside a first one that was found, as a small search around each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.rotations import euler_to_matrix
from vitreous.core.search_grid import search_orientations
from vitreous.methods.matching.local import Field, Place, nearby_angles, window_correlations

_BACKGROUND_STEP = 36.0  # degrees: some three hundred orientations tell mean and deviation


@dataclass(frozen=True)
class Neighbour:
    """Where the second lies from the first: offset (x, y, z) in A between the boxes' centres, in their common frame.

    reach: pixels. angle_reach, angle_step: degrees around the first's orientation. defocus_range, defocus_step: A.
    """

    offset: tuple[float, float, float]
    reach: int = 4
    angle_reach: float = 6.0
    angle_step: float = 2.0
    defocus_range: float = 100.0
    defocus_step: float = 50.0


@dataclass(frozen=True)
class Found:
    """The best of one search. z: correlation in deviations of the background there; n_trials: independent at most."""

    place: Place
    z: float
    mean: float
    variance: float
    n_trials: int


def expected_position(first: Place, neighbour: Neighbour, boxes: tuple[int, int], pixel_size: float) -> tuple[int, int]:
    """(y, x) of the second template's first pixel. boxes: sides of the first and second template."""
    pose = euler_to_matrix(*first.angles.to(torch.float64).unbind())
    shift = (pose @ torch.tensor(neighbour.offset, dtype=torch.float64))[:2] / pixel_size
    grown = boxes[0] // 2 - boxes[1] // 2
    return round(first.position[0] + grown + float(shift[1])), round(first.position[1] + grown + float(shift[0]))


def search_beside(field: Field, first: Place, neighbour: Neighbour, first_box: int) -> Found | None:
    """field: of the second template. None where its box does not lie on the micrograph.

    How far the second lies along the beam moves its defocus by as much; as which way is a convention that files do not
    tell, both are searched.
    """
    box, n = field.volume.box, neighbour
    centre = expected_position(first, n, (first_box, box), field.lens.pixel_size)
    inside = all(-n.reach <= centre[i] <= field.image.shape[i] - box + n.reach for i in range(2))
    if not inside:
        return None
    centre = (
        min(max(centre[0], 0), int(field.image.shape[0]) - box),
        min(max(centre[1], 0), int(field.image.shape[1]) - box),
    )
    angles = nearby_angles(first.angles, n.angle_step, n.angle_reach)
    defocus = _planes(first, n)
    values, corner = window_correlations(field.image, field.maker(defocus), centre, angles, n.reach)
    mean, variance = _background(field, centre, n.reach, first.defocus)
    scores = (values - mean) / variance.sqrt()
    index = torch.unravel_index(scores.argmax(), scores.shape)
    orientation, plane, row, column = (int(i) for i in index)
    place = Place(
        (corner[0] + row, corner[1] + column), angles[orientation], float(defocus[plane]), 1.0, float(values[index])
    )
    return Found(place, float(scores[index]), float(mean[row, column]), float(variance[row, column]), values.numel())


def _planes(first: Place, n: Neighbour) -> Float[Tensor, "planes"]:
    pose = euler_to_matrix(*first.angles.to(torch.float64).unbind())
    along = abs(float((pose @ torch.tensor(n.offset, dtype=torch.float64))[2])) + n.defocus_range
    count = int(along / n.defocus_step + 0.5) if n.defocus_step > 0 else 0
    return first.defocus + n.defocus_step * torch.arange(-count, count + 1, dtype=torch.float64)


def _background(field: Field, centre: tuple[int, int], reach: int, defocus: float) -> tuple[Tensor, Tensor]:
    """Mean and variance over orientations everywhere, at each position of the window."""
    everywhere = search_orientations(_BACKGROUND_STEP, _BACKGROUND_STEP)
    values, _ = window_correlations(field.image, field.maker(torch.tensor([defocus])), centre, everywhere, reach)
    return values.mean((0, 1)), values.var((0, 1), correction=0)
