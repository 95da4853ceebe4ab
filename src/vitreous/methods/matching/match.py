"""One micrograph against one template: filters, templates, search, maps, hits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.search_grid import AngleLimits, GridMethod, search_orientations
from vitreous.kernels.correlate import SearchImage, Statistics, prepare_image, working_bytes
from vitreous.methods.matching.filters import Filters, prepare_micrograph
from vitreous.methods.matching.peaks import Peaks, find_peaks
from vitreous.methods.matching.search import (
    Orientations,
    SearchMaps,
    block_size,
    correlation_mean,
    finish,
    search_block,
)
from vitreous.methods.matching.significance import calibrated_threshold, detection_threshold, joint_p_values
from vitreous.methods.matching.templates import TemplateMaker, make_templates
from vitreous.methods.matching.transfer import Lens, defocus_planes

log = logging.getLogger(__name__)
_PILOT_PROJECTIONS = 64
_TRIM_SIGMAS = 3.0
_FIRST_ESTIMATE_S = 3.0


@dataclass(frozen=True)
class MatchSettings:
    """What to search. Steps in degrees, defoci in A relative to the micrograph's own.

    angles: a list of (phi, theta, psi) to search instead of a grid. trimmed: moments without the highest correlations,
    for searches so small, or particles so many, that the particles themselves raise mean and variance. padding:
    oversampling of the template's transform. corners: templates keep what lies beyond Nyquist in the corners of Fourier
    space, as Leopard-EM's do. scales: of the template's voxel size, all of them searched.
    """

    psi_step: float = 1.5
    theta_step: float = 2.5
    symmetry: str = "C1"
    grid: GridMethod = "uniform"
    limits: AngleLimits | None = None
    angles: Float[Tensor, "n 3"] | None = None
    defocus_min: float = -1200.0
    defocus_max: float = 1200.0
    defocus_step: float = 200.0
    filters: Filters = field(default_factory=Filters)
    trimmed: bool = False
    padding: int = 2
    corners: bool = False
    scales: tuple[float, ...] = (1.0,)

    def orientations(self) -> Float[Tensor, "n 3"]:
        """All orientations of the search, float64."""
        if self.angles is not None:
            return self.angles.to(torch.float64)
        return search_orientations(self.psi_step, self.theta_step, self.symmetry, method=self.grid, limits=self.limits)

    def planes(self) -> Float[Tensor, "planes"]:
        """All relative defoci, float64."""
        return defocus_planes(self.defocus_min, self.defocus_max, self.defocus_step)


@dataclass
class Progress:
    """Where a search stands: the statistics of all blocks before `next_block` of blocks of `size` projections."""

    statistics: Statistics
    next_block: int
    size: int


@dataclass(frozen=True)
class Search:
    """Everything that a search needs, made once."""

    image: SearchImage
    maker: TemplateMaker
    orientations: Orientations
    planes: Float[Tensor, "planes"]

    @property
    def n_correlations(self) -> int:
        """At each pixel."""
        return len(self.orientations) * self.maker.n_planes


def prepare_search(
    image: Float[Tensor, "height width"],
    density: Float[Tensor, "box box box"],
    lens: Lens,
    settings: MatchSettings,
    *,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Search:
    """Filter the micrograph, prepare the templates. Raises ValueError where they do not go together."""
    prepared = prepare_micrograph(image, settings.filters, generator)
    box = int(density.shape[-1])
    pixels = prepared.image.to(device, dtype)
    planes = settings.planes()
    maker = make_templates(
        density,
        lens,
        planes,
        prepared.whitening,
        settings.filters,
        padding=settings.padding,
        scales=settings.scales,
        corners=settings.corners,
        device=device,
        dtype=dtype,
    )
    orientations = Orientations.of(settings.orientations(), with_twins=maker.has_twins)
    return Search(prepare_image(pixels, box), maker, orientations, planes)


def planned_block(search: Search, memory: float) -> int:
    """Projections a block within `memory` bytes, after what the maps and the kernel take."""
    rows, columns = search.image.valid_shape
    fixed = 40.0 * rows * columns
    if not search.image.pixels.is_cuda:
        return block_size(search.maker, memory - fixed - working_bytes(search.image))
    height, width = search.image.padded
    each = search.maker.n_planes * (40.0 * height * width + 8.0 * rows * columns)
    return int(max(1, min(64, (memory - fixed) // each)))


def run_search(
    search: Search,
    settings: MatchSettings,
    *,
    memory: float = 2e9,
    progress: Progress | None = None,
    after_block: Callable[[Progress, int], None] | None = None,
) -> Statistics:
    """Search all blocks that are left. after_block(progress, number of blocks) may save what there is."""
    if progress is None:
        cut = pilot_cuts(search) if settings.trimmed else None
        progress = Progress(new_statistics(search, cut), 0, planned_block(search, memory))
    blocks = search.orientations.blocks(progress.size)
    start, done_before, told = time.monotonic(), progress.statistics.count, False
    for index in range(progress.next_block, len(blocks)):
        search_block(search.image, search.maker, search.orientations, blocks[index], progress.statistics)
        progress.next_block = index + 1
        if after_block is not None:
            after_block(progress, len(blocks))
        passed = time.monotonic() - start
        if not told and (passed > _FIRST_ESTIMATE_S or index == len(blocks) - 1):
            told = True
            _say_rate(search, progress, passed, done_before)
    return progress.statistics


def new_statistics(search: Search, cut: Float[Tensor, "y x"] | None = None) -> Statistics:
    """Before any correlation of a search. cut: of its trimmed moments, where these are kept (`pilot_cuts`)."""
    device = search.image.pixels.device
    return Statistics.empty(search.image.valid_shape, search.maker.box, trim=cut, device=device)


def search_stretch(search: Search, size: int, stretch: range, cut: Float[Tensor, "y x"] | None = None) -> Statistics:
    """Statistics of some of a search's blocks of `size` projections alone, to be merged with those of the others.

    With the blocks of one search of the whole, the merged maxima are its own to the last bit.
    """
    blocks, statistics = search.orientations.blocks(size), new_statistics(search, cut)
    for index in stretch:
        search_block(search.image, search.maker, search.orientations, blocks[index], statistics)
    return statistics


def stretch_of(first: int, total: int, part: int, parts: int) -> range:
    """Blocks of one of `parts` stretches, alike in length but for one block, of those from `first` to `total`.

    Where there are fewer blocks than parts, some are empty.
    """
    left = total - first
    return range(first + left * part // parts, first + left * (part + 1) // parts)


def _say_rate(search: Search, progress: Progress, passed: float, done_before: int) -> None:
    rate = (progress.statistics.count - done_before) / max(passed, 1e-9)
    left = (search.n_correlations - progress.statistics.count) / max(rate, 1e-9)
    log.info(
        "%d correlations at %.3g a second: %s to go", search.n_correlations, rate,
        f"{left / 3600:.1f} h" if left > 5400 else f"{left / 60:.1f} min" if left > 90 else f"{left:.0f} s",
    )  # fmt: skip


def pilot_cuts(search: Search) -> Float[Tensor, "y x"]:
    """Correlations above this are left out of trimmed moments: mean + 3 deviations of a small even sample, a pixel.

    The deviation is held below 1.5 times the map's median: a molecule that the sample met has raised it.
    """
    chosen = np.unique(np.linspace(0, len(search.orientations.first) - 1, _PILOT_PROJECTIONS).round().astype(np.int64))
    statistics = new_statistics(search)
    search_block(search.image, search.maker, search.orientations, chosen, statistics)
    mean = correlation_mean(search.image, statistics)
    deviation = (statistics.sum_squares.cpu() / statistics.count - mean.square()).clamp(min=0.0).sqrt()
    return (mean + _TRIM_SIGMAS * deviation.clamp(max=1.5 * float(deviation.median()))).to(torch.float32)


@dataclass(frozen=True)
class Hits:
    """Peaks with what the maps say there. peaks: by z-score. threshold: z that they had to pass.

    p_values: of each peak among all local maxima of the map; fields as in SearchMaps.
    """

    peaks: Peaks
    threshold: float
    p_values: NDArray[np.float64]
    mip: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    phi: NDArray[np.float64]
    theta: NDArray[np.float64]
    psi: NDArray[np.float64]
    relative_defocus: NDArray[np.float64]
    scale: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.peaks)


def find_hits(
    maps: SearchMaps,
    *,
    false_positives: float = 1.0,
    threshold: float = 0.0,
    calibrated: bool = False,
    p_value: float = 0.0,
    min_distance: float = 5.0,
) -> Hits:
    """Peaks of the scaled MIP above the threshold (0: that for so many false positives), min_distance pixels apart.

    calibrated: the threshold for so many false positives is read off the map's own peaks instead of the formula.
    p_value: where positive, peaks are chosen by the joint p-value of MIP and scaled MIP instead.
    """
    score = maps.scaled_mip.numpy()
    every = find_peaks(score, -np.inf, min_distance)
    of_noise = score.size, maps.n_correlations, false_positives
    cut = threshold or (calibrated_threshold(every.scores, *of_noise) if calibrated else detection_threshold(*of_noise))
    at = every.positions[:, 0], every.positions[:, 1]
    p_values = joint_p_values(maps.mip.numpy()[at].astype(np.float64), every.scores)
    chosen = p_values <= p_value if p_value > 0 else every.scores > cut
    peaks = Peaks(every.positions[chosen], every.scores[chosen])
    rows, columns = peaks.positions[:, 0], peaks.positions[:, 1]
    names = ("mip", "mean", "variance", "phi", "theta", "psi", "relative_defocus")
    values = {name: getattr(maps, name).numpy()[rows, columns].astype(np.float64) for name in names}
    scale = np.ones(len(peaks)) if maps.scale is None else maps.scale.numpy()[rows, columns].astype(np.float64)
    return Hits(peaks, cut, p_values[chosen], **values, scale=scale)


def match_micrograph(
    image: Float[Tensor, "height width"],
    density: Float[Tensor, "box box box"],
    lens: Lens,
    settings: MatchSettings,
    *,
    device: torch.device | None = None,
    memory: float = 2e9,
) -> SearchMaps:
    """The whole search of one micrograph, in memory: what a notebook calls."""
    search = prepare_search(image, density, lens, settings, device=device)
    statistics = run_search(search, settings, memory=memory)
    return finish(search.image, statistics, search.orientations.angles, search.planes, search.maker.scales)
