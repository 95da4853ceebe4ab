"""Movie frames made ready: gain applied, bad pixels found and replaced.

Frames are kept in memory where the plan allows, and read again where it does not.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

_OUTLIER_SIGMA = 6.0
_NEIGHBOURHOOD = 7  # px, odd: the mean that a pixel of the sum is held against
_FIRST_RADIUS = 4  # px: how far replacements for a bad pixel are looked for at first


class UnusableMovie(ValueError):
    """A movie that cannot be corrected for what its frames hold: no fault of ours, nor of the other movies."""


class FrameSource(Protocol):
    """A movie: what io.movies.Movie is, or an array in memory (see `ArrayFrames`)."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) pixels."""
        ...

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start .. stop-1 as float32 (n, y, x)."""
        ...


class ArrayFrames:
    """Frames held in an array (n, y, x)."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self._values = values

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self._values)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) pixels."""
        return self._values.shape[1], self._values.shape[2]

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start .. stop-1 as float32."""
        return self._values[start:stop].astype(np.float32)


class FrameRange:
    """Some consecutive frames of a movie: first .. last, counted from 0, last included."""

    def __init__(self, source: FrameSource, first: int, last: int) -> None:
        if not 0 <= first <= last < source.n_frames:
            raise UnusableMovie(f"frames {first + 1} to {last + 1} are asked for, there are {source.n_frames}")
        self._source, self._first, self._last = source, first, last

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self._last - self._first + 1

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) pixels."""
        return self._source.shape

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start .. stop-1 of the range as float32."""
        return self._source.frames(self._first + start, self._first + stop)


class DarkCorrected:
    """Frames less the camera's dark image (y, x)."""

    def __init__(self, source: FrameSource, dark: NDArray[np.float32]) -> None:
        if dark.shape != source.shape:
            raise UnusableMovie(f"the dark image is of shape {dark.shape}, the frames {source.shape}")
        self._source, self._dark = source, dark

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self._source.n_frames

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) pixels."""
        return self._source.shape

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start .. stop-1 as float32."""
        return self._source.frames(start, stop) - self._dark


def bad_pixels(total: Float[Tensor, "height width"], *, sigma: float = _OUTLIER_SIGMA) -> NDArray[np.bool_]:
    """Hot, cold and dead pixels of the sum of all frames: True where the value cannot be specimen.

    A pixel is bad if it differs from the mean around it by more than sigma robust standard deviations, or if
    it is exactly zero where a working pixel would hardly ever be (at 32 counts a dead pixel is only 5.7 sigma).
    """
    values = total.cpu()
    # The median absolute deviation of a thinned grid is as good and much quicker than of 16 million pixels.
    step = max(1, int(np.sqrt(values.numel() / 2**18)))
    bad = torch.zeros(values.shape, dtype=torch.bool)
    # Twice: a very hot pixel raises the mean around it and makes its neighbours look cold.
    for _ in range(2):
        residual = values - _mean_around(values, ~bad)
        sample = residual[::step, ::step].reshape(-1)
        deviation = 1.4826 * float((sample - sample.median()).abs().median())
        if deviation == 0:
            break
        bad = residual.abs_() > sigma * deviation
        if not bad.any():
            break
    mean = float(values[::step, ::step].mean())
    if values.numel() * np.exp(-max(mean, 0.0)) < 0.01:
        bad |= values == 0
    return np.asarray(bad.numpy())


def _mean_around(values: Float[Tensor, "height width"], good: Bool[Tensor, "height width"]) -> Tensor:
    """Mean of the good pixels around each pixel, itself left out (the pixel itself where none is good)."""
    if bool(good.all()):
        return _sum_around(values).sub_(values).div_(_NEIGHBOURHOOD**2 - 1)
    mask = good.to(values.dtype)
    kept = values * mask
    total, count = _sum_around(kept) - kept, _sum_around(mask) - mask
    return torch.where(count > 0.5, total / count.clamp(min=1.0), values)


def _sum_around(values: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Sum over the neighbourhood of each pixel, mirrored at the edges."""
    reach = _NEIGHBOURHOOD // 2
    out = values
    for axis in range(2):
        size = out.shape[axis]
        edges = (out.narrow(axis, 0, reach).flip(axis), out.narrow(axis, size - reach, reach).flip(axis))
        wide = torch.cat([edges[0], out, edges[1]], axis)
        out = wide.narrow(axis, 0, size).clone()
        for shift in range(1, _NEIGHBOURHOOD):
            out += wide.narrow(axis, shift, size)
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
    rows, columns = np.nonzero(bad)
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


def _is_blank(frame: Float[Tensor, "height width"]) -> bool:
    """Whether all pixels are the same; a thin grid is looked at first."""
    first = frame[0, 0]
    return bool((frame[::37, ::41] == first).all()) and bool((frame == first).all())


class PreparedFrames:
    """Gain-corrected, repaired frames.

    keep: hold them in memory; else every use reads the movie again.
    blank: frames (from 0) in which all pixels are the same, as a camera that drops frames leaves them; they say
    nothing of the motion and add nothing to the sum. Raises UnusableMovie where a frame holds values that are not
    numbers, or most are blank.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        gain: Float[Tensor, "height width"] | None = None,
        defects: NDArray[np.bool_] | None = None,
        find_defects: bool = True,
        keep: bool = True,
        device: torch.device | None = None,
        seed: int = 1,
    ) -> None:
        self.source, self._gain = source, gain
        self.device = device or torch.device("cpu")
        self._held = torch.empty(source.n_frames, *source.shape) if keep else None
        self.blank: list[int] = []
        bad = np.zeros(source.shape, dtype=bool) if defects is None else defects.copy()
        if gain is not None:
            bad |= gain.numpy() == 0
        total = self._sum()
        if find_defects:
            # Known defects must not spoil the statistics by which the others are found.
            Repair(bad, seed)(total, source.n_frames)
            bad |= bad_pixels(total)
        self.bad = bad
        self._repair = Repair(bad, seed)
        if self._held is not None:
            for number, frame in enumerate(self._held):
                self._repair(frame, number)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.source.n_frames

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) pixels."""
        return self.source.shape

    def _read(self, number: int, out: Float[Tensor, "height width"]) -> None:
        raw = torch.from_numpy(np.ascontiguousarray(self.source.frames(number, number + 1)[0]))
        if self._gain is None:
            out.copy_(raw)
        else:
            torch.mul(raw, self._gain, out=out)

    def _sum(self) -> Float[Tensor, "height width"]:
        total = torch.zeros(self.shape)
        frame = torch.empty(self.shape)
        for number in range(self.n_frames):
            if self._held is not None:
                frame = self._held[number]
            self._read(number, frame)
            if not bool(torch.isfinite(frame.sum())):
                raise UnusableMovie(f"frame {number + 1} holds values that are not numbers")
            if _is_blank(frame):
                self.blank.append(number)
            total += frame
        if 2 * len(self.blank) > self.n_frames:
            raise UnusableMovie(f"{len(self.blank)} of {self.n_frames} frames are blank")
        return total

    def stack(self, start: int, stop: int) -> Float[Tensor, "n height width"]:
        """Frames start .. stop-1; not to be written to."""
        if self._held is not None:
            return self._held[start:stop]
        out = torch.empty(stop - start, *self.shape)
        for frame, number in zip(out, range(start, stop), strict=True):
            self._read(number, frame)
            self._repair(frame, number)
        return out
