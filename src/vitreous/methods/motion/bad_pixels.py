"""Pixels of a detector that cannot be believed: found in the sum of all frames, and replaced."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.methods.motion.unusable import UnusableMovie

_OUTLIER_SIGMA = 6.0
_NEIGHBOURHOOD = 7  # px, odd: the mean that a pixel of the sum is held against
_FIRST_RADIUS = 4  # px: how far replacements for a bad pixel are looked for at first


def places(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows, columns) of what is True; by its flat index, which is found ten times as quickly."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return rows, columns


def bad_pixels(total: Float[Tensor, "height width"], *, sigma: float = _OUTLIER_SIGMA) -> NDArray[np.bool_]:
    """Hot, cold and dead pixels of the sum of all frames: True where the value cannot be specimen.

    A pixel is bad if it differs from the mean around it by more than sigma robust standard deviations, or if
    it is exactly zero where a working pixel would hardly ever be (at 32 counts a dead pixel is only 5.7 sigma).
    """
    values = total.cpu()
    # The median absolute deviation of a thinned grid is as good and much quicker than of 16 million pixels.
    step = max(1, int(np.sqrt(values.numel() / 2**16)))
    mean = float(values[::step, ::step].mean())
    bad = torch.zeros(values.shape, dtype=torch.bool)
    # Twice: a very hot pixel raises the mean around it and makes its neighbours look cold.
    for _ in range(2):
        residual = values - _mean_around(values, ~bad, mean)
        sample = residual[::step, ::step].reshape(-1)
        deviation = 1.4826 * float((sample - sample.median()).abs().median())
        if deviation == 0:
            break
        bad = residual.abs_() > sigma * deviation
        if not bad.any():
            break
    if values.numel() * np.exp(-max(mean, 0.0)) < 0.01:
        bad |= values == 0
    return np.asarray(bad.numpy())


def _mean_around(
    values: Float[Tensor, "height width"], good: Bool[Tensor, "height width"], otherwise: float
) -> Float[Tensor, "height width"]:
    """Mean of the good pixels around each pixel, itself left out; `otherwise` where none is good.

    A pixel that is hotter than all around it by far makes all of them look cold at first.
    """
    if bool(good.all()):
        return _sum_around(values).sub_(values).div_(_NEIGHBOURHOOD**2 - 1)
    mask = good.to(values.dtype)
    kept = values * mask
    total, count = _sum_around(kept) - kept, _sum_around(mask) - mask
    return torch.where(count > 0.5, total / count.clamp(min=1.0), otherwise)


def _sum_around(values: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Sum over the neighbourhood of each pixel, mirrored at the edges."""
    reach = _NEIGHBOURHOOD // 2
    out = values
    for axis in range(2):
        size = out.shape[axis]
        edges = (out.narrow(axis, 0, reach).flip(axis), out.narrow(axis, size - reach, reach).flip(axis))
        wide = torch.cat([edges[0], out, edges[1]], axis)
        n = wide.shape[axis]
        # Seven are four, two and one: fewer walks than one for each.
        twos = wide.narrow(axis, 0, n - 1) + wide.narrow(axis, 1, n - 1)
        out = twos.narrow(axis, 0, size) + twos.narrow(axis, 2, size)
        out += twos.narrow(axis, 4, size)
        out += wide.narrow(axis, 6, size)
    return out


class Repair:
    """Replaces bad pixels by good ones picked at random nearby, anew in each frame.

    Random picks keep the noise a detector pixel has; a mean would leave smooth spots that stay still while the
    specimen moves, and pull the alignment to zero.
    """

    def __init__(self, bad: NDArray[np.bool_], seed: int = 1) -> None:
        self._seed = seed
        self._index = np.flatnonzero(bad.ravel())
        self._candidates, self._count = _good_neighbours(bad)

    def __call__(self, frame: Float[Tensor, "height width"], number: int) -> None:
        """Repair a frame in place; number: which frame it is (the picks differ between frames)."""
        if not self._index.size:
            return
        rng = np.random.default_rng([self._seed, number])
        pick = (rng.random(len(self._index)) * self._count).astype(np.int64)
        flat = frame.reshape(-1)
        flat[torch.from_numpy(self._index)] = flat[torch.from_numpy(self._candidates[np.arange(len(pick)), pick])]


def _good_neighbours(bad: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each bad pixel the flat indices of good pixels around it (n_bad, m) and how many there are (n_bad,)."""
    ny, nx = bad.shape
    rows, columns = places(bad)
    width = (2 * _FIRST_RADIUS + 1) ** 2
    candidates = np.zeros((len(rows), width), dtype=np.int64)
    count = np.zeros(len(rows), dtype=np.int64)
    if bad.all():
        raise UnusableMovie("every pixel is marked bad")
    radius = _FIRST_RADIUS
    while (waiting := np.flatnonzero(count == 0)).size:
        # Wider rings are sampled as coarsely, so that a whole dead tile costs no more memory than single pixels.
        offsets = np.unique(np.linspace(-radius, radius, 2 * _FIRST_RADIUS + 1).round().astype(np.int64))
        dy, dx = (grid.ravel() for grid in np.meshgrid(offsets, offsets, indexing="ij"))
        y = rows[waiting, None] + dy
        x = columns[waiting, None] + dx
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        flat = np.clip(y, 0, ny - 1) * nx + np.clip(x, 0, nx - 1)
        good = inside & ~bad.ravel()[flat]
        order = np.argsort(~good, axis=1, kind="stable")
        candidates[waiting] = np.take_along_axis(flat, order, axis=1)
        count[waiting] = good.sum(1)
        radius = radius * 2 if radius < max(ny, nx) else radius + 1
    return candidates, count
