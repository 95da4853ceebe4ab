"""Pick particles in one micrograph by their response to a Laplacian of Gaussian, or to templates."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.fourier import lowpass, rescale
from vitreous.core.neighbours import keep_best_apart
from vitreous.methods.picking.background import even_out
from vitreous.methods.picking.log_filter import log_response, scale_ladder
from vitreous.methods.picking.peaks import local_maxima, refine_maxima, roundness
from vitreous.methods.picking.robust import robust_spread
from vitreous.methods.picking.templates import Templates, template_scores
from vitreous.methods.picking.threshold import NoiseLaw

# Working pixels across the smallest particle: enough for its LoG (sampled beyond twice its bandwidth), few enough
# to make filters of a 4k micrograph a matter of milliseconds.
_PIXELS_PER_DIAMETER = 18.0


@dataclass(frozen=True)
class PickingRecipe:
    """What to look for.

    diameter_min, diameter_max: of the particles, in A. min_distance: between picks, A (0: 0.8 diameter_min).
    max_resolution: detail finer than this (A) is filtered off. dark_particles: protein is dark, as it is recorded.
    use_ctf: weight the filter with the micrograph's CTF where it is known. edge: closest a centre may be to the
    micrograph's edge, A (negative: half of diameter_max). min_roundness: least ratio of the curvatures of the score
    at a pick; ridges along the edges of carbon have less.
    """

    diameter_min: float
    diameter_max: float
    min_distance: float = 0.0
    max_resolution: float = 20.0
    dark_particles: bool = True
    use_ctf: bool = True
    exclude_contamination: bool = True
    edge: float = -1.0
    min_roundness: float = 0.2

    @property
    def distance(self) -> float:
        """Smallest distance between picks in A."""
        return self.min_distance or 0.8 * self.diameter_min

    @property
    def margin(self) -> float:
        """Closest that a centre may be to the edge in A."""
        return self.edge if self.edge >= 0 else 0.5 * self.diameter_max


@dataclass(frozen=True)
class Candidates:
    """Every place that may be a particle, best first.

    coordinates: (x, y) in pixels of the micrograph. scores: LoG response over its robust spread in this micrograph.
    diameters: A, scale of the strongest response. contaminated: share of the micrograph that was left out.
    noise: what the scores of candidates in pure noise would be. classes: which template answered most, from 1 (0: none
    was used); psi: its direction in the plane, degrees.
    """

    coordinates: Float[np.ndarray, "n 2"]
    scores: Float[np.ndarray, "n"]
    diameters: Float[np.ndarray, "n"]
    contaminated: float
    noise: NoiseLaw
    classes: Int[np.ndarray, "n"] = field(default_factory=lambda: np.zeros(0, np.int64))
    psi: Float[np.ndarray, "n"] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Lens:
    """How the micrograph was seen: for a CTF-weighted filter."""

    microscope: Microscope
    defocus: Defocus


def working_shape(shape: tuple[int, int], pixel_size: float, recipe: PickingRecipe) -> tuple[int, int]:
    """Even sizes (y, x) to which the micrograph is reduced for picking."""
    working = max(pixel_size, recipe.diameter_min / _PIXELS_PER_DIAMETER)
    even = [min(n, max(16, 2 * round(n * pixel_size / working / 2))) for n in shape]
    return even[0], even[1]


def find_candidates(
    micrograph: Float[Tensor, "height width"],
    pixel_size: float,
    recipe: PickingRecipe,
    lens: Lens | None = None,
    templates: Templates | None = None,
) -> Candidates:
    """All maxima, with the minimum distance, of the multi-scale LoG response, or of that to templates if there are any.

    Raises ValueError if the micrograph is too small for the particle or constant.
    """
    shape = (int(micrograph.shape[0]), int(micrograph.shape[1]))
    if min(shape) * pixel_size < 2.0 * recipe.diameter_max:
        raise ValueError(f"the micrograph is smaller than two particles of {recipe.diameter_max:g} A")
    small_shape = working_shape(shape, pixel_size, recipe)
    working = pixel_size * shape[0] / small_shape[0]
    small = rescale(micrograph.to(torch.float32), small_shape).to(torch.float64).cpu().numpy()
    if not np.isfinite(small).all() or robust_spread(small) == 0.0:
        raise ValueError("the micrograph is constant or holds values that are not finite")
    even = even_out(
        -small if recipe.dark_particles else small,
        recipe.diameter_max / working,
        exclude_contamination=recipe.exclude_contamination,
    )
    scores, best = _scores(even.image, ~even.contaminated, working, recipe, lens, templates)
    allowed = away_from_edges(small_shape, recipe.margin / working) & ~even.contaminated
    positions, strengths, where = _separate_maxima(scores, allowed, working, recipe)
    enlarge = np.array(shape) / np.array(small_shape)
    centre = np.array(small_shape) // 2
    full = (positions - centre) * enlarge + np.array(shape) // 2
    share = float(even.contaminated.mean())
    law = noise_law(small_shape, working, recipe, templates)
    none = np.zeros(len(strengths))
    if templates is None:
        return Candidates(full[:, ::-1], strengths, best[where], share, law, none.astype(np.int64), none)
    angles = templates.psi().numpy()
    number = best[where].astype(np.int64)
    psi = angles[number % len(angles)]
    diameters = np.full(len(strengths), 0.5 * (recipe.diameter_min + recipe.diameter_max))
    return Candidates(full[:, ::-1], strengths, diameters, share, law, number // len(angles) + 1, psi)


def _scores(
    image: Float[np.ndarray, "height width"],
    clean: Bool[np.ndarray, "height width"],
    pixel_size: float,
    recipe: PickingRecipe,
    lens: Lens | None,
    templates: Templates | None,
) -> tuple[Float[np.ndarray, "height width"], np.ndarray]:
    """The map in which maxima are looked for, and the diameter or template that gave each place its score."""
    if templates is None:
        return score_map(image, clean, pixel_size, recipe, lens)
    contrast = None
    if lens is not None and recipe.use_ctf:
        contrast = ctf(image.shape, pixel_size, lens.microscope, lens.defocus, dtype=torch.float64)[0]
    return template_scores(image, pixel_size, templates, max_resolution=recipe.max_resolution, contrast=contrast)


def _separate_maxima(
    scores: Float[np.ndarray, "height width"],
    allowed: Bool[np.ndarray, "height width"],
    pixel_size: float,
    recipe: PickingRecipe,
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"], tuple[np.ndarray, ...]]:
    """Positive, round maxima no closer than allowed: sub-pixel (y, x), scores, and the pixels they came from."""
    peaks = local_maxima(scores, allowed & (scores > 0))
    positions = refine_maxima(scores, peaks)
    step = 0.25 * np.sqrt(recipe.diameter_min * recipe.diameter_max) / pixel_size
    round_ones = roundness(scores, positions, step) >= recipe.min_roundness
    peaks, positions = peaks[round_ones], positions[round_ones]
    strengths = scores[tuple(peaks.T)]
    kept = keep_best_apart(positions, strengths, recipe.distance / pixel_size)
    return positions[kept], strengths[kept], tuple(peaks[kept].T)


@lru_cache(maxsize=8)
def noise_law(
    shape: tuple[int, int], pixel_size: float, recipe: PickingRecipe, templates: Templates | None = None
) -> NoiseLaw:
    """Scores of candidates in white noise of this shape, filtered as the micrograph is (fixed seed)."""
    noise = np.random.default_rng(0).standard_normal(shape)
    everywhere = np.ones(shape, dtype=bool)
    scores, _ = _scores(noise, everywhere, pixel_size, recipe, None, templates)
    return NoiseLaw.of(_separate_maxima(scores, everywhere, pixel_size, recipe)[1])


def score_map(
    image: Float[np.ndarray, "height width"],
    clean: Bool[np.ndarray, "height width"],
    pixel_size: float,
    recipe: PickingRecipe,
    lens: Lens | None = None,
) -> tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Greatest LoG response over the scales, each in units of its robust spread, and the diameter (A) that gave it."""
    shape = (int(image.shape[0]), int(image.shape[1]))
    tensor = torch.from_numpy(image)
    weight = lowpass(shape, pixel_size, max(recipe.max_resolution, 2.0 * pixel_size))
    if lens is not None and recipe.use_ctf:
        weight = weight * ctf(shape, pixel_size, lens.microscope, lens.defocus, dtype=torch.float64)[0]
    best = np.full(shape, -np.inf)
    diameters = np.zeros(shape)
    for diameter in scale_ladder(recipe.diameter_min, recipe.diameter_max):
        response = log_response(tensor, pixel_size, diameter, weight).numpy()
        inside = response[clean]
        if inside.size == 0:
            continue
        response = (response - np.median(inside)) / max(robust_spread(inside), 1e-30)
        better = response > best
        best = np.where(better, response, best)
        diameters = np.where(better, diameter, diameters)
    return best, diameters


def away_from_edges(shape: tuple[int, int], margin: float) -> Bool[np.ndarray, "height width"]:
    """Pixels at least margin pixels inside."""
    rows, columns = (np.arange(n) for n in shape)
    row_ok = (rows >= margin) & (rows <= shape[0] - 1 - margin)
    column_ok = (columns >= margin) & (columns <= shape[1] - 1 - margin)
    return row_ok[:, None] & column_ok[None, :]
