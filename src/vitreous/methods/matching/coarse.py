"""The first two passes of a hierarchical search: coarse and at low resolution everywhere, then its peaks once more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import rescale
from vitreous.core.neighbours import keep_best_apart
from vitreous.kernels.correlate import prepare_image
from vitreous.methods.matching.filters import Filters, Prepared, RadialCurve
from vitreous.methods.matching.grid_neighbours import GridNeighbours
from vitreous.methods.matching.local import window_correlations
from vitreous.methods.matching.match import MatchSettings, Search, run_search
from vitreous.methods.matching.peaks import Peaks, find_peaks
from vitreous.methods.matching.search import Orientations, SearchMaps, finish
from vitreous.methods.matching.templates import make_templates
from vitreous.methods.matching.transfer import Lens

_APART_PX = 2.0  # of two candidates, in coarse pixels
_MOST_SHARE = 20.0  # there are hardly more peaks than that


@dataclass(frozen=True)
class Hierarchy:
    """factor: of the Fourier crop of the first two passes; steps: of the first one's angular steps.

    wide, kept, looked, climbed: candidates for each box area that are looked at in the second pass, glanced at in full
    resolution, looked at there, and climbed from; of a full search of 100,000 correlations: one of more affords more
    (`count`).
    sample: correlations a pixel, of the fine grid, that give mean and deviation everywhere; moments: projections that
    give them at the candidates.
    """

    factor: int = 2
    steps: float = 1.5
    wide: float = 30.0
    kept: float = 12.0
    looked: float = 1.6
    climbed: float = 0.8
    sample: int = 250
    moments: int = 4_000

    def count(self, each: float, pixels: int, box: int, n_correlations: int) -> int:
        """How many candidates `wide` to `climbed` stand for: they cost the same share of any full search."""
        return int(each * pixels / box**2 * min(_MOST_SHARE, n_correlations / 100_000)) + 1


@dataclass(frozen=True)
class Candidates:
    """What is worth a look at full resolution.

    positions (n, 2): (y, x) in full pixels; orientations: numbers of the fine grid; defoci: of the coarse planes;
    scores: z at low resolution.
    """

    positions: Int[np.ndarray, "n 2"]
    orientations: Int[np.ndarray, "n"]
    defoci: Float[np.ndarray, "n"]
    scores: Float[np.ndarray, "n"]

    def each(self) -> Iterator[tuple[tuple[int, int], int, float]]:
        """Position, orientation, defocus of one after another."""
        for (y, x), orientation, defocus in zip(self.positions, self.orientations, self.defoci, strict=True):
            yield (int(y), int(x)), int(orientation), float(defocus)


def mean_step(settings: MatchSettings) -> float:
    """Root mean square of the three angular steps, degrees."""
    return math.sqrt((2.0 * settings.theta_step**2 + settings.psi_step**2) / 3.0)


def search_of(
    prepared: Prepared, density: Tensor, lens: Lens, settings: MatchSettings, planes: Float[Tensor, "planes"]
) -> Search:
    """A search of a micrograph that has been filtered."""
    maker = make_templates(
        density, lens, planes, prepared.whitening, settings.filters, padding=settings.padding, corners=settings.corners
    )
    orientations = Orientations.of(settings.orientations(), with_twins=maker.has_twins)
    return Search(prepare_image(prepared.image.to(torch.float32), maker.box), maker, orientations, planes)


def find_candidates(
    prepared: Prepared,
    density: Float[Tensor, "box box box"],
    lens: Lens,
    settings: MatchSettings,
    plan: Hierarchy,
    grid: GridNeighbours,
    n_correlations: int,
    memory: float,
) -> Candidates:
    """The most promising places, each with the orientation of the fine grid that fits best at low resolution.

    n_correlations: of the full search.
    """
    search, coarse = coarse_search(prepared, density, lens, settings, plan)
    statistics = run_search(search, coarse, memory=memory)
    maps = finish(search.image, statistics, search.orientations.angles, search.planes)
    wide, kept = (
        plan.count(each, prepared.image.numel(), density.shape[-1], n_correlations) for each in (plan.wide, plan.kept)
    )
    peaks = find_peaks(maps.scaled_mip.numpy(), -np.inf, _APART_PX)
    peaks = Peaks(*(one[:wide] for one in (peaks.positions, peaks.scores)))
    # Half a coarse and half a fine step in both directions and in plane, on average: the third pass has the corners.
    reach = 0.5 * (plan.steps + 1.0) * mean_step(settings)
    scores, orientations = _looked_at_again(search, maps, peaks, grid, reach)
    apart = np.flatnonzero(keep_best_apart(peaks.positions.astype(np.float64), scores, _APART_PX))
    best = apart[np.argsort(-scores[apart], kind="stable")][:kept]
    y, x = peaks.positions[best, 0], peaks.positions[best, 1]
    defoci = maps.relative_defocus.numpy()[y, x]
    return Candidates(peaks.positions[best] * plan.factor, orientations[best], defoci, scores[best])


def coarse_search(
    prepared: Prepared, density: Float[Tensor, "box box box"], lens: Lens, settings: MatchSettings, plan: Hierarchy
) -> tuple[Search, MatchSettings]:
    """The first pass, ready to begin: image and template Fourier-cropped, wider angular steps, fewer planes."""
    factor, white = plan.factor, prepared.whitening
    coarse = replace(
        settings,
        psi_step=settings.psi_step * plan.steps,
        theta_step=settings.theta_step * plan.steps,
        filters=coarser_filters(settings.filters, factor),
        trimmed=False,
    )
    curve = None if white is None else RadialCurve(white.frequencies * factor, white.values)
    small = rescale(density.to(torch.float64), (density.shape[-1] // factor,) * 3)
    cropped = Prepared(crop_image(prepared.image, factor), curve)
    lens = replace(lens, pixel_size=lens.pixel_size * factor)
    return search_of(cropped, small, lens, coarse, coarse_planes(settings.planes(), factor)), coarse


def coarse_planes(planes: Float[Tensor, "planes"], factor: int) -> Float[Tensor, "fewer"]:
    """As few defoci, evenly spread, as leave none of the given ones further off than at full resolution.

    CTF phases go with k^2: at 1/factor of the frequency a plane serves factor^2 as wide a range of defoci.
    """
    if len(planes) == 1:
        return planes
    low, high = float(planes.min()), float(planes.max())
    step = (high - low) / (len(planes) - 1)
    span = high - low + step
    count = math.ceil(span / (step * factor**2) - 1e-9)
    return low - 0.5 * step + span / count * (torch.arange(count, dtype=torch.float64) + 0.5)


def _looked_at_again(
    coarse: Search, maps: SearchMaps, peaks: Peaks, grid: GridNeighbours, reach: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Each peak's score at the fine grid's orientations near its own, a pixel around; and the best one's number.

    Only at the peak's own defocus plane.
    The coarse grid leaves most molecules between its orientations, and their scores to chance: this brings them to the
    top, at a hundredth of what the fine grid would cost everywhere.
    """
    y, x = peaks.positions[:, 0], peaks.positions[:, 1]
    poses = torch.stack([one[y, x] for one in (maps.phi, maps.theta, maps.psi)], 1)
    deviation = maps.variance.sqrt()
    makers = [replace(coarse.maker, transfer=one[None]) for one in coarse.maker.transfer]
    planes = (maps.relative_defocus[y, x][:, None] - coarse.planes).abs().argmin(1).tolist()
    scores, numbers = peaks.scores.copy(), np.empty(len(peaks), np.int64)
    for i, pose in enumerate(poses):
        near = grid.near(pose, reach)
        values, (top, left) = window_correlations(
            coarse.image.pixels, makers[planes[i]], (int(y[i]), int(x[i])), grid.angles[near], 1
        )
        window = np.s_[top : top + values.shape[2], left : left + values.shape[3]]
        z = (values.amax(1) - maps.mean[window]) / deviation[window]
        best = int(z.argmax())
        scores[i] = max(scores[i], float(z.reshape(-1)[best]))
        numbers[i] = near[best // z[0].numel()]
    return scores, numbers


def crop_image(image: Float[Tensor, "height width"], factor: int) -> Float[Tensor, "small_y small_x"]:
    """Fourier-crop to 1/factor of the size, variance 1; zeros are added where the size is no multiple."""
    shape = tuple(-(-size // (2 * factor)) * 2 * factor for size in image.shape)
    padded = torch.nn.functional.pad(image, (0, shape[1] - image.shape[1], 0, shape[0] - image.shape[0]))
    small = rescale(padded, (shape[0] // factor, shape[1] // factor))
    return small / small.std()


def coarser_filters(filters: Filters, factor: int) -> Filters:
    """The same filters where a pixel is `factor` times larger."""
    curve = filters.curve
    return replace(
        filters,
        low=filters.low * factor,
        high=filters.high * factor,
        falloff=filters.falloff * factor,
        curve=None if curve is None else RadialCurve(curve.frequencies * factor, curve.values),
    )
