"""A picker that was trained: what it is, and the candidates that it finds in a micrograph."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from vitreous.core.fourier import rescale
from vitreous.core.neighbours import keep_best_apart
from vitreous.methods.picking.background import EvenMicrograph, even_out
from vitreous.methods.picking.calibration import Calibration, log_odds_threshold
from vitreous.methods.picking.network import PickerNetwork, logit_map
from vitreous.methods.picking.peaks import local_maxima, refine_maxima
from vitreous.methods.picking.pick import Candidates, PickingRecipe, away_from_edges
from vitreous.methods.picking.robust import robust_spread
from vitreous.methods.picking.selection import Cut
from vitreous.methods.picking.threshold import NoiseLaw

_SMOOTHING_PX = 1.0  # of the map in which maxima are looked for: its plateaus are ragged


@dataclass(frozen=True)
class PickerScale:
    """At what size things are learned and looked for: working pixel (A), diameter of the particle (A)."""

    pixel_size: float
    diameter: float


@dataclass(frozen=True, eq=False)
class TrainedPicker:
    """The network with all that it takes to use it, on micrographs that are prepared as those it was trained on."""

    network: PickerNetwork
    scale: PickerScale
    calibration: Calibration
    dark_particles: bool = True
    exclude_contamination: bool = False

    def on(self, device: torch.device) -> TrainedPicker:
        """The same on a device, ready to be used and not to be trained."""
        return replace(self, network=self.network.to(device).eval().requires_grad_(False))


@dataclass(frozen=True)
class WorkingMicrograph:
    """A micrograph at working size, evened out, with the way back: grown pixels (y, x) from working to micrograph."""

    even: EvenMicrograph
    shape: tuple[int, int]

    def to_working(self, coordinates: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """(x, y) on the micrograph to (y, x) here."""
        small = np.array(self.even.image.shape)
        return (coordinates[:, ::-1] - np.array(self.shape) // 2) * (small / np.array(self.shape)) + small // 2

    def to_micrograph(self, positions: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """(y, x) here to (x, y) on the micrograph."""
        small = np.array(self.even.image.shape)
        return ((positions - small // 2) * (np.array(self.shape) / small) + np.array(self.shape) // 2)[:, ::-1]


def working_micrograph(
    micrograph: Float[Tensor, "height width"],
    pixel_size: float,
    scale: PickerScale,
    *,
    dark_particles: bool = True,
    exclude_contamination: bool = True,
) -> WorkingMicrograph:
    """Reduce a micrograph to working pixels and even it out, particles bright.

    Raises ValueError if it is constant, not finite or smaller than two particles.
    """
    shape = (int(micrograph.shape[0]), int(micrograph.shape[1]))
    if min(shape) * pixel_size < 2.0 * scale.diameter:
        raise ValueError(f"the micrograph is smaller than two particles of {scale.diameter:g} A")
    small_shape = tuple(2 * round(n * pixel_size / scale.pixel_size / 2) for n in shape)
    small = rescale(micrograph.to(torch.float32), small_shape).to(torch.float64).cpu().numpy()
    if not np.isfinite(small).all() or robust_spread(small) == 0.0:
        raise ValueError("the micrograph is constant or holds values that are not finite")
    image = -small if dark_particles else small
    even = even_out(image, scale.diameter / scale.pixel_size, exclude_contamination=exclude_contamination)
    return WorkingMicrograph(even, shape)


def network_maxima(
    network: PickerNetwork,
    image: Float[np.ndarray, "height width"],
    allowed: Bool[np.ndarray, "height width"],
    distance_px: float,
    device: torch.device,
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
    """Places (y, x) where the network's output has a maximum, no closer than allowed, and the output: best first."""
    output = ndimage.gaussian_filter(logit_map(network, image, device), _SMOOTHING_PX, mode="nearest")
    peaks = local_maxima(output, allowed)
    positions, strengths = refine_maxima(output, peaks), output[tuple(peaks.T)]
    kept = keep_best_apart(positions, strengths, distance_px)
    return positions[kept], strengths[kept]


def find_with_network(
    micrograph: Float[Tensor, "height width"],
    pixel_size: float,
    recipe: PickingRecipe,
    picker: TrainedPicker,
    device: torch.device,
) -> Candidates:
    """Every place that may be a particle; the scores are log-odds. Raises ValueError as `working_micrograph` does."""
    work = working_micrograph(
        micrograph,
        pixel_size,
        picker.scale,
        dark_particles=picker.dark_particles,
        exclude_contamination=picker.exclude_contamination,
    )
    image, working = work.even.image, picker.scale.pixel_size
    allowed = away_from_edges((image.shape[0], image.shape[1]), recipe.margin / working) & ~work.even.contaminated
    positions, strengths = network_maxima(picker.network, image, allowed, recipe.distance / working, device)
    none = np.zeros(len(strengths))
    return Candidates(
        work.to_micrograph(positions),
        picker.calibration(strengths),
        np.full(len(strengths), picker.scale.diameter),
        float(work.even.contaminated.mean()),
        NoiseLaw(0.0, 1.0),  # log-odds need none
        none.astype(np.int64),
        none,
    )


def cut_log_odds(scores: list[Float[np.ndarray, "n"]], *, given: float | None = None, adjust: float = 0.0) -> list[Cut]:
    """One cut for all micrographs, from the histogram of all scores: log-odds mean the same everywhere.

    given, adjust: as in `choose_cuts`.
    """
    pooled = np.concatenate(scores) if scores else np.zeros(0)
    shift = adjust * float(np.std(pooled)) if len(pooled) else 0.0
    threshold, basis = log_odds_threshold(pooled) if given is None else (given, "given")
    shift = shift if given is None else 0.0
    return [Cut(threshold + shift, float("inf"), basis)] * len(scores)
