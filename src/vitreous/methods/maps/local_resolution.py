"""Local resolution: the FSC of two half-maps in a small window that visits every part of the map.

Cardone, Heymann and Steven (2013) J. Struct. Biol. 184, 226; corrected for the window by phase randomisation.
The windows are cut out before they are transformed: the cost goes with the window, not with the box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import fft as scipy_fft
from scipy import ndimage
from torch import Tensor

from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.core.fsc import fsc_ft
from vitreous.core.masks import soft_sphere
from vitreous.methods.maps.half_map_fsc import corrected_fsc, randomise_phases


@dataclass(frozen=True)
class LocalResolution:
    """resolution: A per voxel, interpolated between the windows' centres. sampled: the resolution of each window
    inside the mask. filtered: the map low-passed to its local resolution."""

    resolution: Float[Tensor, "box box box"]
    filtered: Float[Tensor, "box box box"]
    sampled: Float[Tensor, "n"]

    def median(self) -> float:
        """Median over the windows (A)."""
        return float(self.sampled.median())

    def percentile(self, percent: float) -> float:
        """Percentile over the windows (A); 10 is among the best resolved parts."""
        return float(torch.quantile(self.sampled, percent / 100.0))


@dataclass(frozen=True)
class Window:
    """sampling: distance of the windows (A). radius, edge: of the soft sphere (A; None: sampling/2 and sampling).
    randomise_at: phases are random beyond this (A). worst: no window is called worse than this (A)."""

    sampling: float = 25.0
    radius: float | None = None
    edge: float | None = None
    randomise_at: float = 10.0
    worst: float = 50.0
    threshold: float = 0.143


def local_resolution(
    half1: Float[Tensor, "box box box"],
    half2: Float[Tensor, "box box box"],
    voxel_size: float,
    mask: Float[Tensor, "box box box"],
    to_filter: Float[Tensor, "box box box"],
    window: Window | None = None,
    *,
    generator: torch.Generator | None = None,
    max_bytes: int = 1 << 30,
) -> LocalResolution:
    """Resolution at FSC 0.143 in soft spherical windows centred inside the mask, and a locally filtered map.

    to_filter: the map to low-pass locally (usually sharpened without a final low-pass).
    max_bytes: memory for a batch of windows. Raises ValueError if the mask holds no window's centre.
    """
    how = window or Window()
    box = half1.shape[-1]
    centres = window_centres(mask, max(1, round(how.sampling / voxel_size)))
    if len(centres) == 0:
        raise ValueError("no window's centre lies inside the mask")
    values = _window_resolutions(half1, half2, voxel_size, centres, how, generator, max_bytes)
    spread = _interpolate(values, centres, box)
    best = float(values.min())
    filtered = filter_locally(to_filter, torch.from_numpy(spread), voxel_size, best=best, worst=how.worst)
    return LocalResolution(torch.from_numpy(spread), filtered, torch.from_numpy(values))


def window_centres(mask: Float[Tensor, "box box box"], step: int) -> Int[np.ndarray, "n 3"]:
    """Grid points (z, y, x), `step` voxels apart around the centre of the box, where the mask is above 0.5."""
    box = mask.shape[-1]
    start = (box // 2) % step
    axis = np.arange(start, box, step)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside = mask.cpu().numpy()[grid[:, 0], grid[:, 1], grid[:, 2]] > 0.5
    return grid[inside]


def _window_resolutions(
    half1: Tensor,
    half2: Tensor,
    voxel_size: float,
    centres: Int[np.ndarray, "n 3"],
    how: Window,
    generator: torch.Generator | None,
    max_bytes: int,
) -> Float[np.ndarray, "n"]:
    radius = (how.radius if how.radius is not None else how.sampling / 2.0) / voxel_size
    edge = (how.edge if how.edge is not None else how.sampling) / voxel_size
    side = scipy_fft.next_fast_len(2 * math.ceil(radius + edge), real=True)
    side += side % 2
    soft = soft_sphere(side, radius, edge=edge, ndim=3, dtype=torch.float32)
    maps = _with_random_phases(half1, half2, voxel_size, how.randomise_at, generator)
    # Windows near the faces of the box reach beyond it, into zeros.
    padded = [torch.nn.functional.pad(m, [side // 2] * 6) for m in maps]
    randomised_from = math.ceil(side * voxel_size / how.randomise_at)
    batch = max(1, max_bytes // (4 * side**3 * 4 * 6))
    out = []
    for start in range(0, len(centres), batch):
        chosen = centres[start : start + batch]
        cut = [_cut(m, chosen, side) * soft for m in padded]
        transforms = [torch.fft.rfftn(c, dim=(-3, -2, -1)) for c in cut]
        masked = fsc_ft(transforms[0], transforms[1], side)
        randomised = fsc_ft(transforms[2], transforms[3], side)
        curves = corrected_fsc(masked, randomised, randomised_from)
        out.append(crossing_resolution(curves, side * voxel_size, how.threshold).clamp(max=how.worst))
    return torch.cat(out).numpy()


def _with_random_phases(
    half1: Tensor, half2: Tensor, voxel_size: float, randomise_at: float, generator: torch.Generator | None
) -> list[Float[Tensor, "box box box"]]:
    """Both halves, and both with phases random beyond a resolution, all float32."""
    box = half1.shape[-1]
    rng = generator if generator is not None else torch.Generator().manual_seed(0)
    shell = max(1, math.ceil(box * voxel_size / randomise_at))
    shape = (box, box, box)
    random = [
        to_real(randomise_phases(to_fourier(h.to(torch.float64), 3), shell, rng), shape, 3) for h in (half1, half2)
    ]
    return [m.to(torch.float32) for m in (half1, half2, *random)]


def _cut(padded: Tensor, centres: Int[np.ndarray, "n 3"], side: int) -> Float[Tensor, "n side side side"]:
    return torch.stack([padded[z : z + side, y : y + side, x : x + side] for z, y, x in centres])


def crossing_resolution(
    curves: Float[Tensor, "n n_shells"], extent: float, threshold: float = 0.143
) -> Float[Tensor, "n"]:
    """Resolution (A) where each curve first falls below threshold, linear between shells; extent: window side in A.

    A window has few shells, so the crossing is read between them (the whole map's resolution is not).
    """
    n_shells = curves.shape[-1]
    below = curves[:, 1:] < threshold
    first = torch.where(below.any(1), below.to(torch.int64).argmax(1) + 1, n_shells - 1)
    rows = torch.arange(curves.shape[0])
    after = curves[rows, first]
    before = curves[rows, first - 1]
    step = ((before - threshold) / (before - after).clamp(min=1e-12)).clamp(0.0, 1.0)
    shell = torch.where(below.any(1), first - 1 + step, torch.full_like(after, n_shells - 1))
    return extent / shell.clamp(min=1e-3)


def _interpolate(values: np.ndarray, centres: Int[np.ndarray, "n 3"], box: int) -> Float[np.ndarray, "box box box"]:
    """Spread window values over all voxels: frequencies blended linearly inside, the nearest window's outside."""
    step = _grid_step(centres, box)
    axis = np.arange((box // 2) % step, box, step)
    lattice = np.full((len(axis),) * 3, np.nan)
    index = (centres - axis[0]) // step
    lattice[index[:, 0], index[:, 1], index[:, 2]] = 1.0 / values
    nearest = ndimage.distance_transform_edt(np.isnan(lattice), return_distances=False, return_indices=True)
    lattice = lattice[tuple(nearest)]
    position = (np.arange(box) - axis[0]) / step
    grid = np.meshgrid(position, position, position, indexing="ij")
    return (1.0 / ndimage.map_coordinates(lattice, grid, order=1, mode="nearest")).astype(np.float32)


def _grid_step(centres: Int[np.ndarray, "n 3"], box: int) -> int:
    gaps = np.unique(np.abs(centres - box // 2))
    gaps = gaps[gaps > 0]
    return int(np.gcd.reduce(gaps)) if gaps.size else box


def filter_locally(
    density: Float[Tensor, "box box box"],
    resolution: Float[Tensor, "box box box"],
    voxel_size: float,
    *,
    best: float,
    worst: float,
    n_filters: int = 16,
) -> Float[Tensor, "box box box"]:
    """Low-pass each voxel's surroundings to its local resolution (A).

    A bank of low-passed maps, evenly spaced in frequency between worst and best, blended linearly per voxel.
    """
    shape = tuple(density.shape)
    frequencies = torch.linspace(1.0 / worst, 1.0 / min(best, worst * 0.999), n_filters, dtype=torch.float64)
    position = (1.0 / resolution.to(torch.float64) - frequencies[0]) / (frequencies[1] - frequencies[0])
    position = position.clamp(0.0, n_filters - 1.0)
    map_ft = to_fourier(density.to(torch.float64), 3)
    out = torch.zeros(shape, dtype=torch.float64)
    for index, frequency in enumerate(frequencies):
        weight = (1.0 - (position - index).abs()).clamp(min=0.0)
        if float(weight.max()) > 0:
            out += weight * to_real(map_ft * lowpass(shape, voxel_size, 1.0 / float(frequency)), shape, 3)
    return out.to(torch.float32)
