"""A search in two passes: coarse and at low resolution everywhere, fine only around what stood out.

First pass: image and template Fourier-cropped by `factor`, angular steps wider by as much, defocus steps by its square
(CTF phases go with k^2). Second pass: around the highest peaks of the first pass's z-score, orientations of the fine
step within the coarse one, all defocus planes, at full resolution. Mean and deviation, which make a z-score of a
correlation, come from an even sample of the fine grid over the whole image, so that scores and threshold mean what they
mean in the full search.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.core.fourier import rescale
from vitreous.kernels.correlate import Statistics, prepare_image
from vitreous.methods.matching.filters import Filters, Prepared, RadialCurve, prepare_micrograph
from vitreous.methods.matching.local import local_search, nearby_angles
from vitreous.methods.matching.match import MatchSettings, Search, planned_block, run_search
from vitreous.methods.matching.peaks import Peaks, find_peaks
from vitreous.methods.matching.search import Orientations, SearchMaps, finish, search_block
from vitreous.methods.matching.templates import make_templates
from vitreous.methods.matching.transfer import Lens, defocus_planes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hierarchy:
    """factor: of the first pass's Fourier crop and steps. density: candidates for each box area of the micrograph.

    sample: orientations of the fine grid that give mean and deviation.
    """

    factor: int = 2
    density: float = 8.0
    sample: int = 400


def hierarchical_search(
    image: Float[Tensor, "height width"],
    density: Float[Tensor, "box box box"],
    lens: Lens,
    settings: MatchSettings,
    hierarchy: Hierarchy | None = None,
    *,
    device: torch.device | None = None,
    memory: float = 2e9,
    generator: torch.Generator | None = None,
) -> SearchMaps:
    """Maps as of the full search, right at the candidates; elsewhere they hold the sample's (lower) maxima.

    n_correlations is that of the full search, and so is the threshold. Raises ValueError where the box does not divide.
    """
    plan = hierarchy or Hierarchy()
    box = int(density.shape[-1])
    if box % (2 * plan.factor):
        raise ValueError(
            f"a box of {box} cannot be reduced by {plan.factor}: it must be a multiple of {2 * plan.factor}"
        )
    prepared = prepare_micrograph(image, settings.filters, generator)
    fine = _search_of(prepared, density, lens, settings, settings.planes(), device)
    statistics = _background(fine, plan.sample, memory)
    coarse_angles, candidates = _candidates(prepared, density, lens, settings, plan, device, memory)
    log.info("%d candidates from the coarse pass", len(candidates))
    return _with_candidates(fine, statistics, settings, plan, candidates, coarse_angles)


def _search_of(
    prepared: Prepared,
    density: Tensor,
    lens: Lens,
    settings: MatchSettings,
    planes: Tensor,
    device: torch.device | None,
) -> Search:
    pixels = prepared.image.to(device, torch.float32)
    maker = make_templates(
        density, lens, planes, prepared.whitening, settings.filters, padding=settings.padding, device=device
    )
    orientations = Orientations.of(settings.orientations(), with_twins=maker.has_twins)
    return Search(prepare_image(pixels, maker.box), maker, orientations, planes)


def _background(fine: Search, sample: int, memory: float) -> Statistics:
    """Statistics of an even sample of the fine grid (and its twins) at every pixel."""
    first = fine.orientations.first
    chosen = np.unique(np.linspace(0, len(first) - 1, min(max(1, sample // 2), len(first))).round().astype(np.int64))
    statistics = Statistics.empty(fine.image.valid_shape, fine.maker.box, device=fine.image.pixels.device)
    size = planned_block(fine, memory)
    for start in range(0, len(chosen), size):
        search_block(fine.image, fine.maker, fine.orientations, chosen[start : start + size], statistics)
    return statistics


def _candidates(
    prepared: Prepared,
    density: Tensor,
    lens: Lens,
    settings: MatchSettings,
    plan: Hierarchy,
    device: torch.device | None,
    memory: float,
) -> tuple[Tensor, Peaks]:
    """The coarse pass: its best angles (3, y, x) and its highest peaks, both in its own pixels."""
    factor, box = plan.factor, int(density.shape[-1])
    pixels = crop_image(prepared.image, factor)
    white = prepared.whitening
    curve = None if white is None else RadialCurve(white.frequencies * factor, white.values)
    coarse = replace(
        settings,
        psi_step=settings.psi_step * factor,
        theta_step=settings.theta_step * factor,
        defocus_step=settings.defocus_step * factor**2,
        filters=coarser_filters(settings.filters, factor),
        trimmed=False,
    )
    if settings.angles is not None:
        raise ValueError("the hierarchical strategy needs a grid, not a list of angles")
    span = max(settings.defocus_max - settings.defocus_min, 0.0)
    planes = coarse.planes() if span >= coarse.defocus_step > 0 else defocus_planes(0.0, 0.0, 0.0)
    small = rescale(density.to(torch.float64), (box // factor,) * 3)
    search = _search_of(
        Prepared(pixels, curve), small, replace(lens, pixel_size=lens.pixel_size * factor), coarse, planes, device
    )
    maps = finish(search.image, run_search(search, coarse, memory=memory), search.orientations.angles, planes)
    area = prepared.image.shape[0] * prepared.image.shape[1] / box**2
    peaks = find_peaks(maps.scaled_mip.numpy(), -np.inf, 2.0)
    most = int(plan.density * area) + 1
    return torch.stack([maps.phi, maps.theta, maps.psi]), Peaks(peaks.positions[:most], peaks.scores[:most])


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


def _with_candidates(
    fine: Search,
    statistics: Statistics,
    settings: MatchSettings,
    plan: Hierarchy,
    candidates: Peaks,
    coarse_angles: Tensor,
) -> SearchMaps:
    """The background's maps with the local searches' results at the candidates."""
    maps = finish(fine.image, statistics, fine.orientations.angles, fine.planes)
    gain = maps.variance.sqrt().reciprocal()
    step, factor = min(settings.psi_step, settings.theta_step), plan.factor
    reach = factor * max(settings.psi_step, settings.theta_step)
    rows, columns = maps.mip.shape
    for y, x in candidates.positions:
        nearby = nearby_angles(coarse_angles[:, y, x].to(torch.float64), step, reach)
        # The coarse peak's pixel, and those around it that it stands for.
        centre = (min(int(y) * factor, rows - 1), min(int(x) * factor, columns - 1))
        window = (
            slice(max(0, centre[0] - factor), min(rows - 1, centre[0] + factor) + 1),
            slice(max(0, centre[1] - factor), min(columns - 1, centre[1] + factor) + 1),
        )
        found = local_search(
            fine.image.pixels, fine.maker, centre, nearby, factor, maps.mean[window].reshape(-1),
            gain[window].reshape(-1),
        )  # fmt: skip
        if found.score > float(maps.scaled_mip[found.position]):
            at = found.position
            maps.scaled_mip[at] = found.score
            maps.mip[at] = found.score / gain[at] + maps.mean[at]
            maps.phi[at], maps.theta[at], maps.psi[at] = found.angles.to(torch.float32)
            maps.relative_defocus[at] = fine.planes[found.plane]
    return replace(maps, n_correlations=fine.n_correlations)
