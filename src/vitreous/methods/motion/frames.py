"""Movie frames made ready: gain applied, bad pixels found and replaced.

Frames are kept in memory where the plan allows, and read again where it does not.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.take_frame import take_frame
from vitreous.methods.motion.bad_pixels import Repair, bad_pixels, places
from vitreous.methods.motion.unusable import UnusableMovie
from vitreous.runtime.workspace import Workspace

ALIGNMENT = "alignment, then sums"  # of a workspace: the two never stand side by side


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


def _is_blank(frame: Float[Tensor, "height width"]) -> bool:
    """Whether all pixels are the same; a thin grid is looked at first."""
    first = frame[0, 0]
    return bool((frame[::37, ::41] == first).all()) and bool((frame == first).all())


def _bin_again(
    binned: Float[Tensor, "h w"],
    frame: Float[Tensor, "height width"],
    bad: tuple[NDArray[np.int64], NDArray[np.int64]],
    factor: int,
) -> None:
    """Sum the bins of a frame anew in which a pixel (rows, columns) was replaced."""
    rows, columns = (torch.from_numpy(index // factor) for index in bad)
    inside = (rows < binned.shape[0]) & (columns < binned.shape[1])
    rows, columns = rows[inside], columns[inside]
    offsets = [(i, j) for i in range(factor) for j in range(factor)]
    binned[rows, columns] = sum(
        (frame[factor * rows + i, factor * columns + j] for i, j in offsets), start=torch.zeros(len(rows))
    )


class PreparedFrames:
    """Gain-corrected, repaired frames.

    keep: hold them in memory; else every use reads the movie again. binning: (factor, (ny, nx)) to have them binned on
    the way, where they are held (see `take_binned`).
    workspace: where the frames are held, and the binned ones, whose place the sums take later (ALIGNMENT).
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
        binning: tuple[int, tuple[int, int]] | None = None,
        device: torch.device | None = None,
        seed: int = 1,
        workspace: Workspace | None = None,
    ) -> None:
        self.source = source
        self.workspace = workspace or Workspace()
        self._gain = None if gain is None else gain.to(torch.float32).contiguous()
        self.device = device or torch.device("cpu")
        n = source.n_frames
        self._held = self.workspace.array("frames", (n, *source.shape)) if keep else None
        self._factor, binned_shape = binning or (1, (0, 0))
        self._binned = self.workspace.array(ALIGNMENT, (n, *binned_shape)) if keep and binning else None
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
            replaced = places(bad)
            for number, frame in enumerate(self._held):
                self._repair(frame, number)
                if self._binned is not None:
                    _bin_again(self._binned[number], frame, replaced, self._factor)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.source.n_frames

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) pixels."""
        return self.source.shape

    def take_binned(self) -> Float[Tensor, "n h w"] | None:
        """The binned frames, where they were asked for and are held; they are the caller's from now on."""
        binned, self._binned = self._binned, None
        return binned

    def _raw(self, number: int) -> Float[Tensor, "height width"]:
        return torch.from_numpy(np.ascontiguousarray(self.source.frames(number, number + 1)[0]))

    def _sum(self) -> Float[Tensor, "height width"]:
        total = torch.zeros(self.shape)
        frame = torch.empty(self.shape)
        for number in range(self.n_frames):
            if self._held is not None:
                frame = self._held[number]
            binned = None if self._binned is None else self._binned[number]
            if not take_frame(self._raw(number), self._gain, frame, total, binned, self._factor):
                raise UnusableMovie(f"frame {number + 1} holds values that are not numbers")
            if _is_blank(frame):
                self.blank.append(number)
        if 2 * len(self.blank) > self.n_frames:
            raise UnusableMovie(f"{len(self.blank)} of {self.n_frames} frames are blank")
        return total

    def stack(self, start: int, stop: int) -> Float[Tensor, "n height width"]:
        """Frames start .. stop-1; not to be written to."""
        if self._held is not None:
            return self._held[start:stop]
        out = torch.empty(stop - start, *self.shape)
        for frame, number in zip(out, range(start, stop), strict=True):
            raw = self._raw(number)
            frame.copy_(raw if self._gain is None else raw * self._gain)
            self._repair(frame, number)
        return out
