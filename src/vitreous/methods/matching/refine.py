"""Refinement of hits: orientation, defocus, position and pixel size of each, from where a search left it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.methods.matching.local import Field, Place, best_around, climb_angles, window_correlations


@dataclass(frozen=True)
class RefineSettings:
    """angle_step: of the search before (degrees); angle_finest: where to stop. Defocus: A to either side, and step.

    pixel_range: fraction of the pixel size to either side (0: not refined), pixel_step likewise. reach: pixels.
    """

    angle_step: float = 1.5
    angle_finest: float = 0.15
    defocus_range: float = 100.0
    defocus_step: float = 20.0
    pixel_range: float = 0.0
    pixel_step: float = 0.001
    reach: int = 3


@dataclass(frozen=True)
class Refined:
    """place: at whole pixels. shift: (y, x) of the peak from there, below a pixel. start: its correlation before."""

    place: Place
    shift: tuple[float, float]
    start: float


def refine_place(field: Field, start: Place, settings: RefineSettings) -> Refined:
    """Climb over orientations, scan defocus and pixel size, climb again with steps half as wide."""
    s = settings
    begin = best_around(field, start, start.angles[None], torch.tensor([start.defocus]), 0)
    best = best_around(field, begin, start.angles[None], torch.tensor([start.defocus]), s.reach)
    for first_step in (s.angle_step, 0.5 * s.angle_step):
        best = climb_angles(field, best, max(first_step, s.angle_finest), s.angle_finest, 1)
        best = _scan_defocus(field, best, start.defocus, s)
        best = _scan_pixel_size(field, best, s)
    return Refined(best, _below_a_pixel(field, best), begin.correlation)


def _scan_defocus(field: Field, best: Place, centre: float, s: RefineSettings) -> Place:
    if s.defocus_range <= 0:
        return best
    count = int(s.defocus_range / s.defocus_step + 1e-9)
    planes = centre + s.defocus_step * torch.arange(-count, count + 1, dtype=torch.float64)
    found = best_around(field, best, best.angles[None], planes, 1)
    return found if found.correlation > best.correlation else best


def _scan_pixel_size(field: Field, best: Place, s: RefineSettings) -> Place:
    if s.pixel_range <= 0:
        return best
    count = int(s.pixel_range / s.pixel_step + 1e-9)
    for i in range(-count, count + 1):
        trial = replace(best, scale=1.0 + i * s.pixel_step)
        found = best_around(field, trial, best.angles[None], torch.tensor([best.defocus]), 1)
        best = found if found.correlation > best.correlation else best
    return best


def _below_a_pixel(field: Field, best: Place) -> tuple[float, float]:
    """Vertex of the parabolas through the peak and its neighbours along y and x; 0 at the border."""
    maker = field.maker(torch.tensor([best.defocus]), best.scale)
    values, corner = window_correlations(field.image, maker, best.position, best.angles[None], 1)
    if values.shape[-2:] != (3, 3) or corner != (best.position[0] - 1, best.position[1] - 1):
        return 0.0, 0.0
    grid = values[0, 0].to(torch.float64)
    return _vertex(grid[:, 1]), _vertex(grid[1])


def _vertex(three: Float[Tensor, "3"]) -> float:
    low, middle, high = (float(v) for v in three)
    curvature = low - 2.0 * middle + high
    return float(min(0.5, max(-0.5, 0.5 * (low - high) / curvature))) if curvature < 0 else 0.0
