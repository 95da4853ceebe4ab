"""A search in two passes: coarse and at low resolution everywhere, then the fine grid only around what stood out.

First pass: image and template Fourier-cropped by `factor`, angular steps wider, defocus steps by its square (CTF phases
go with k^2). Second pass: around the highest peaks of the first pass's z-score, the orientations of the fine grid that
lie near the coarse one, all defocus planes, at full resolution. No correlation is looked at that the full search would
not look at, so that a threshold means no more false positives than there. Mean and deviation come from a random sample
of the fine grid: a small one over the whole image, a large one at the candidates' places.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.fourier import rescale
from vitreous.core.rotations import euler_to_matrix
from vitreous.core.symmetry import symmetry_matrices
from vitreous.kernels.correlate import Statistics, prepare_image
from vitreous.kernels.correlate.statistics import invert
from vitreous.methods.matching.filters import Filters, Prepared, RadialCurve, prepare_micrograph
from vitreous.methods.matching.local import Place, window_correlations
from vitreous.methods.matching.match import MatchSettings, Search, planned_block, run_search
from vitreous.methods.matching.peaks import Peaks, find_peaks
from vitreous.methods.matching.search import Orientations, SearchMaps, finish, search_block
from vitreous.methods.matching.significance import detection_threshold
from vitreous.methods.matching.templates import make_templates
from vitreous.methods.matching.transfer import Lens, defocus_planes

log = logging.getLogger(__name__)
_TEMPLATES = 96  # at once
_ROUGH = 1.5  # below the threshold by which a z-score from the small sample is worth a better one


@dataclass(frozen=True)
class Hierarchy:
    """factor: of the first pass's Fourier crop; steps: of its angular steps. density: candidates for each box area.

    sample: correlations a pixel, of the fine grid, that give mean and deviation; moments: at the candidates.
    """

    factor: int = 2
    steps: float = 1.5
    density: float = 2.0
    sample: int = 250
    moments: int = 12_000


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
    fine = _search_of(prepared, density, lens, settings, settings.planes())
    maps = finish(fine.image, _background(fine, plan.sample, memory), fine.orientations.angles, fine.planes)
    candidates, poses = _candidates(prepared, density, lens, settings, plan, memory)
    log.info("%d candidates from the coarse pass", len(candidates))
    _search_around(maps, fine, settings, plan, candidates, poses)
    return replace(maps, n_correlations=fine.n_correlations)


def _search_of(
    prepared: Prepared, density: Tensor, lens: Lens, settings: MatchSettings, planes: Float[Tensor, "planes"]
) -> Search:
    maker = make_templates(
        density, lens, planes, prepared.whitening, settings.filters, padding=settings.padding, corners=settings.corners
    )
    orientations = Orientations.of(settings.orientations(), with_twins=maker.has_twins)
    return Search(prepare_image(prepared.image.to(torch.float32), maker.box), maker, orientations, planes)


def _sample(fine: Search, correlations: int) -> NDArray[np.int64]:
    """Random projections of the fine grid, as many as give (with twins and planes) so many correlations."""
    first = fine.orientations.first
    wanted = min(len(first), max(1, round(correlations / fine.n_correlations * len(first))))
    return np.sort(np.random.default_rng(0).choice(len(first), wanted, replace=False))


def _background(fine: Search, correlations: int, memory: float) -> Statistics:
    """Statistics of a sample of the fine grid (and its twins) at every pixel."""
    chosen = _sample(fine, correlations)
    statistics = Statistics.empty(fine.image.valid_shape, fine.maker.box)
    size = planned_block(fine, memory)
    for start in range(0, len(chosen), size):
        search_block(fine.image, fine.maker, fine.orientations, chosen[start : start + size], statistics)
    return statistics


def _candidates(
    prepared: Prepared, density: Tensor, lens: Lens, settings: MatchSettings, plan: Hierarchy, memory: float
) -> tuple[Peaks, Float[Tensor, "n 3"]]:
    """The coarse pass: its highest peaks, in its own pixels, and their (phi, theta, psi)."""
    factor, box = plan.factor, int(density.shape[-1])
    white = prepared.whitening
    curve = None if white is None else RadialCurve(white.frequencies * factor, white.values)
    coarse = replace(
        settings,
        psi_step=settings.psi_step * plan.steps,
        theta_step=settings.theta_step * plan.steps,
        defocus_step=settings.defocus_step * factor**2,
        filters=coarser_filters(settings.filters, factor),
        trimmed=False,
    )
    span = settings.defocus_max - settings.defocus_min
    planes = coarse.planes() if span >= coarse.defocus_step > 0 else defocus_planes(0.0, 0.0, 0.0)
    small = rescale(density.to(torch.float64), (box // factor,) * 3)
    cropped = Prepared(crop_image(prepared.image, factor), curve)
    search = _search_of(cropped, small, replace(lens, pixel_size=lens.pixel_size * factor), coarse, planes)
    maps = finish(search.image, run_search(search, coarse, memory=memory), search.orientations.angles, planes)
    most = int(plan.density * prepared.image.numel() / box**2) + 1
    peaks = find_peaks(maps.scaled_mip.numpy(), -np.inf, 2.0)
    peaks = Peaks(peaks.positions[:most], peaks.scores[:most])
    rows, columns = peaks.positions[:, 0], peaks.positions[:, 1]
    return peaks, torch.stack([one[rows, columns] for one in (maps.phi, maps.theta, maps.psi)], 1)


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


def _search_around(
    maps: SearchMaps,
    fine: Search,
    settings: MatchSettings,
    plan: Hierarchy,
    candidates: Peaks,
    poses: Float[Tensor, "n 3"],
) -> None:
    """Take the highest of the fine grid's correlations near each candidate up in the maps, in place."""
    every = euler_to_matrix(*fine.orientations.angles.unbind(1)).to(torch.float32).reshape(-1, 9)
    images = symmetry_matrices(settings.symmetry).to(torch.float32)
    # Half a coarse and half a fine step in both directions and in plane, on average, and a fifth for the corners.
    reach = 0.6 * (plan.steps + 1.0) * ((2.0 * settings.theta_step**2 + settings.psi_step**2) / 3.0) ** 0.5
    rows, columns = maps.mip.shape
    places: dict[tuple[int, int], None] = {}
    for (y, x), pose in zip(candidates.positions, poses, strict=True):
        near = _near(euler_to_matrix(*pose.to(torch.float64).unbind()), images, every, reach)
        centre = (min(int(y) * plan.factor, rows - 1), min(int(x) * plan.factor, columns - 1))
        found = _best_of(fine, fine.orientations.angles[near], centre, plan.factor)
        at = found.position
        places[at] = None
        if found.correlation > float(maps.mip[at]):
            maps.mip[at] = found.correlation
            maps.phi[at], maps.theta[at], maps.psi[at] = found.angles.to(torch.float32)
            maps.relative_defocus[at] = found.defocus
    cut = detection_threshold(maps.mip.numel(), fine.n_correlations) - _ROUGH
    rough = (maps.mip - maps.mean) / maps.variance.sqrt()
    where = torch.tensor([at for at in places if float(rough[at]) > cut], dtype=torch.int64).reshape(-1, 2)
    mean, variance = _moments_at(fine, where, _sample(fine, plan.moments))
    y, x = where.unbind(1)
    maps.mean[y, x], maps.variance[y, x] = mean, variance
    maps.scaled_mip[y, x] = (maps.mip[y, x] - mean) / variance.sqrt()
    log.info("%d of %d candidates came near the threshold", len(where), len(places))


def _best_of(fine: Search, angles: Float[Tensor, "n 3"], centre: tuple[int, int], reach: int) -> Place:
    values, (top, left) = window_correlations(fine.image.pixels, fine.maker, centre, angles, reach)
    index = torch.unravel_index(values.argmax(), values.shape)
    orientation, plane, row, column = (int(i) for i in index)
    place = Place((top + row, left + column), angles[orientation], float(fine.planes[plane]))
    return replace(place, correlation=float(values[index]))


def _moments_at(
    fine: Search, places: Int[Tensor, "n 2"], chosen: NDArray[np.int64]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Mean and variance of the correlations of the chosen projections (and twins) at places (y, x), float32."""
    box = fine.maker.box
    if len(places) == 0:
        return torch.zeros(0), torch.zeros(0)
    windows = torch.stack([fine.image.pixels[y : y + box, x : x + box] for y, x in places.tolist()])
    if fine.maker.has_twins:  # a twin against a window is the template against the window's inversion
        windows = torch.stack([windows, invert(windows)])
    columns = windows.reshape(-1, box * box).T
    total, squares = torch.zeros(2, columns.shape[1], dtype=torch.float64)
    angles = fine.orientations.angles[torch.from_numpy(fine.orientations.first[chosen])]
    for some in angles.split(max(1, _TEMPLATES // fine.maker.n_planes)):
        values = fine.maker(some).reshape(-1, box * box) @ columns
        total += values.sum(0, dtype=torch.float64)
        squares += values.square().sum(0, dtype=torch.float64)
    count = len(angles) * fine.maker.n_planes * (2 if fine.maker.has_twins else 1)
    mean, square = (one.reshape(-1, len(places)).sum(0) / count for one in (total, squares))
    return mean.to(torch.float32), (square - mean.square()).to(torch.float32)


def _near(
    pose: Float[Tensor, "3 3"], images: Float[Tensor, "order 3 3"], every: Float[Tensor, "n 9"], reach: float
) -> Int[Tensor, "near"]:
    """Numbers of the poses within `reach` degrees of one or of its images under the symmetry; the nearest at least."""
    equivalent = (pose.to(torch.float32) @ images).reshape(-1, 9)  # symmetry acts on the volume
    cosine = 0.5 * ((every @ equivalent.T).max(1).values - 1.0)
    limit = float(np.cos(np.deg2rad(reach)))
    near = torch.nonzero(cosine >= limit)[:, 0]
    return near if len(near) else cosine.argmax()[None]
