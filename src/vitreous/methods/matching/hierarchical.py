"""A search in passes: coarse and at low resolution everywhere, then ever finer around what stands out.

First pass: image and template Fourier-cropped by `factor`, angular steps wider, defocus planes fewer. Second pass: its
peaks at the fine grid's orientations near theirs, still at low resolution. Third: a glance at the best of them at full
resolution, at the nearest orientations and planes, since in thick ice low resolution ranks molecules among thousands;
then a look a little further around the best by both resolutions. Last: the best of these climb over the fine grid,
through all defocus planes. No correlation is looked at that the full search would not look at, so that a threshold
means no more false positives than there. Mean and deviation come from a random sample of the fine grid: a small one
over the whole image, a large one at the candidates' places.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitreous.kernels.correlate import Statistics
from vitreous.kernels.correlate.statistics import invert
from vitreous.methods.matching.coarse import Hierarchy, find_candidates, mean_step, search_of
from vitreous.methods.matching.filters import prepare_micrograph
from vitreous.methods.matching.grid_neighbours import GridNeighbours
from vitreous.methods.matching.local import Place, best_of
from vitreous.methods.matching.match import MatchSettings, Search, planned_block
from vitreous.methods.matching.search import SearchMaps, finish, search_block
from vitreous.methods.matching.significance import detection_threshold
from vitreous.methods.matching.transfer import Lens

log = logging.getLogger(__name__)
_TEMPLATES = 96  # at once
_GLANCE, _LOOK, _CLIMB = 1.0, 1.8, 1.2  # steps of the grid
_ROUGH = 1.5  # below the threshold by which a z-score from the small sample is worth a better one


def hierarchical_search(
    image: Float[Tensor, "height width"],
    density: Float[Tensor, "box box box"],
    lens: Lens,
    settings: MatchSettings,
    hierarchy: Hierarchy | None = None,
    *,
    memory: float = 2e9,
    generator: torch.Generator | None = None,
) -> SearchMaps:
    """Maps as of the full search, right at the candidates; elsewhere they hold the sample's (lower) maxima.

    n_correlations is that of the full search, and so is the threshold. On the CPU. Raises ValueError where the box does
    not divide or the orientations are a list.
    """
    plan = hierarchy or Hierarchy()
    box = int(density.shape[-1])
    if box % (2 * plan.factor):
        raise ValueError(f"a box of {box} cannot be reduced by {plan.factor}: it is no multiple of {2 * plan.factor}")
    if settings.angles is not None:
        raise ValueError("the hierarchical strategy needs a grid, not a list of angles")
    prepared = prepare_micrograph(image, settings.filters, generator)
    fine = search_of(prepared, density, lens, settings, settings.planes())
    grid = GridNeighbours.of(fine.orientations.angles, settings.symmetry)
    candidates = find_candidates(prepared, density, lens, settings, plan, grid, fine.n_correlations, memory)
    maps = finish(fine.image, _sampled(fine, plan.sample, memory), fine.orientations.angles, fine.planes)
    step = mean_step(settings)
    width = settings.defocus_step * plan.factor**2
    climb = _Climb(fine, grid, _GLANCE * step, _LOOK * step, _CLIMB * step, width, plan.factor)
    places, scores = [climb.glance(*one) for one in candidates.each()], torch.from_numpy(candidates.scores)
    looked, climbed = (
        plan.count(each, prepared.image.numel(), box, fine.n_correlations) for each in (plan.looked, plan.climbed)
    )
    places, scores = _most_promising(places, scores, maps, looked)
    places, scores = _most_promising([climb.look(one) for one in places], scores, maps, climbed)
    places = [climb.on_from(one) for one in places]
    _take_up(maps, places)
    _score_again(maps, fine, places, plan)
    return replace(maps, n_correlations=fine.n_correlations)


def _sampled(fine: Search, correlations: int, memory: float) -> Statistics:
    """Statistics at every pixel of random projections of the fine grid, with their twins and planes."""
    first = fine.orientations.first
    wanted = min(len(first), max(1, round(correlations / fine.n_correlations * len(first))))
    chosen = np.sort(np.random.default_rng(0).choice(len(first), wanted, replace=False))
    statistics = Statistics.empty(fine.image.valid_shape, fine.maker.box)
    size = planned_block(fine, memory)
    for start in range(0, len(chosen), size):
        search_block(fine.image, fine.maker, fine.orientations, chosen[start : start + size], statistics)
    return statistics


def _most_promising(
    places: list[Place], scores: Float[Tensor, "n"], maps: SearchMaps, count: int
) -> tuple[list[Place], Float[Tensor, "count"]]:
    """The `count` best places and their scores at low resolution.

    Ranked by the sum of the z-scores at low and at full resolution, each in units of its spread among all candidates,
    nearly all of which are noise: a look may miss the orientation, low resolution the detail, seldom both.
    """
    y, x = torch.tensor([place.position for place in places], dtype=torch.int64).reshape(-1, 2).unbind(1)
    correlations = torch.tensor([place.correlation for place in places])
    z = (correlations - maps.mean[y, x]) / maps.variance[y, x].sqrt()
    spreads = [one.std(correction=0).clamp(min=1e-6) for one in (scores, z)]
    chosen = (scores / spreads[0] + z / spreads[1]).argsort(descending=True, stable=True)[:count]
    return [places[i] for i in chosen.tolist()], scores[chosen]


@dataclass(frozen=True)
class _Climb:
    """The passes at full resolution. glanced, looked, climbed: degrees around the orientation of the second pass at a
    glance, around the best of these at a look, and around ever better ones.

    width: of the defocus planes of the second pass, A; reach: pixels.
    """

    fine: Search
    grid: GridNeighbours
    glanced: float
    looked: float
    climbed: float
    width: float
    reach: int

    def glance(self, position: tuple[int, int], orientation: int, defocus: float) -> Place:
        """The highest correlation near the orientation and plane of the second pass."""
        rows, columns = self.fine.image.valid_shape
        start = Place((min(position[0], rows - 1), min(position[1], columns - 1)), self.grid.angles[orientation])
        return self._best(start, self.grid.near(start.angles, self.glanced), self._planes_near(defocus))

    def look(self, start: Place) -> Place:
        """The highest correlation a little further around."""
        found = self._best(start, self.grid.near(start.angles, self.looked), self._planes_near(start.defocus))
        return max(start, found, key=lambda place: place.correlation)

    def on_from(self, best: Place) -> Place:
        """The highest correlation: from an orientation to the best of those around it, until it stays."""
        every, seen = torch.arange(len(self.fine.planes)), torch.zeros(len(self.grid.angles), dtype=torch.bool)
        while True:
            near = self.grid.near(best.angles, self.climbed)
            near = near[~seen[near]]
            if len(near) == 0:
                return best
            seen[near] = True
            found = self._best(best, near, every)
            if found.correlation <= best.correlation:
                return best
            best = found

    def _planes_near(self, defocus: float) -> Int[Tensor, "some"]:
        return torch.nonzero((self.fine.planes - defocus).abs() <= 0.5 * self.width + 1e-6)[:, 0]

    def _best(self, start: Place, numbers: Int[Tensor, "n"], planes: Int[Tensor, "some"]) -> Place:
        maker = replace(self.fine.maker, transfer=self.fine.maker.transfer[planes])
        angles, defoci = self.grid.angles[numbers], self.fine.planes[planes]
        return best_of(self.fine.image.pixels, maker, start, angles, defoci, self.reach)


def _take_up(maps: SearchMaps, places: list[Place]) -> None:
    """The places' correlations, where they are higher than the maps', in place."""
    for place in places:
        at = place.position
        if place.correlation > float(maps.mip[at]):
            maps.mip[at] = place.correlation
            maps.phi[at], maps.theta[at], maps.psi[at] = place.angles.to(torch.float32)
            maps.relative_defocus[at] = place.defocus


def _score_again(maps: SearchMaps, fine: Search, places: list[Place], plan: Hierarchy) -> None:
    """Better moments, and z-scores from them, at the places that come near the threshold, in place."""
    cut = detection_threshold(maps.mip.numel(), fine.n_correlations) - _ROUGH
    rough = (maps.mip - maps.mean) / maps.variance.sqrt()
    chosen = sorted({place.position for place in places if float(rough[place.position]) > cut})
    y, x = torch.tensor(chosen, dtype=torch.int64).reshape(-1, 2).unbind(1)
    mean, variance = moments_at(fine, torch.stack([y, x], 1), plan.moments)
    maps.mean[y, x], maps.variance[y, x] = mean, variance
    maps.scaled_mip[y, x] = (maps.mip[y, x] - mean) / variance.sqrt()
    log.info("%d of %d candidates came near the threshold", len(chosen), len(places))


def moments_at(
    fine: Search, places: Int[Tensor, "n 2"], projections: int
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Mean and variance of the correlations at places (y, x), float32, from at most so many projections and twins.

    Each at one defocus plane: planes are much alike, orientations are not, and it is these that cost.
    """
    box, planes = fine.maker.box, fine.maker.n_planes
    if len(places) == 0:
        return torch.zeros(0), torch.zeros(0)
    windows = torch.stack([fine.image.pixels[y : y + box, x : x + box] for y, x in places.tolist()])
    if fine.maker.has_twins:  # a twin against a window is the template against the window's inversion
        windows = torch.stack([windows, invert(windows)])
    columns = windows.reshape(-1, box * box).T
    total, squares = torch.zeros(2, columns.shape[1], dtype=torch.float64)
    chosen = np.random.default_rng(0).permutation(fine.orientations.first)[:projections]
    for plane in range(planes):
        maker = replace(fine.maker, transfer=fine.maker.transfer[plane : plane + 1])
        for some in fine.orientations.angles[torch.from_numpy(chosen[plane::planes])].split(_TEMPLATES):
            values = maker(some).reshape(-1, box * box) @ columns
            total += values.sum(0, dtype=torch.float64)
            squares += values.square().sum(0, dtype=torch.float64)
    count = len(chosen) * (2 if fine.maker.has_twins else 1)
    mean, square = (one.reshape(-1, len(places)).sum(0) / count for one in (total, squares))
    return mean.to(torch.float32), (square - mean.square()).to(torch.float32)
