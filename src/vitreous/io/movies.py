"""Movies, whatever their format: MRC, TIFF, EER."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.io.eer import DEFAULT_GROUPING, EerMovie
from vitreous.io.mrc import MrcStack, open_stack, read_array, read_header, read_sections
from vitreous.io.tiff import TiffMovie

_PLAIN = (".mrc", ".mrcs", ".st")
_PACKED = tuple(f"{plain}.{how}" for plain in _PLAIN for how in ("gz", "bz2", "xz"))
MOVIE_ENDINGS = (*_PLAIN, ".tif", ".tiff", ".eer", *_PACKED)


class Movie(Protocol):
    """Frames by number. shape (y, x); pixel_size in A or None where the file does not say.

    n_dropped: raw frames at the end that make no whole frame (EER).
    """

    path: Path
    n_frames: int
    n_dropped: int
    shape: tuple[int, int]
    pixel_size: float | None

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start..stop-1 as float32 (n, y, x), which may hold values that are no numbers."""
        ...

    def raw_frames(self) -> NDArray[Any]:
        """All frames (n, y, x) in the number type they are stored in (EER: rendered counts)."""
        ...


class MrcMovie:
    """Frames of an MRC stack."""

    n_dropped = 0

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        header = read_header(self.path)
        self.n_frames = header.shape[0]
        self.shape = (header.shape[1], header.shape[2])
        self.pixel_size: float | None = header.pixel_size or None
        self._packed: MrcStack | None = None

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start..stop-1 as float32 (n, y, x)."""
        if not 0 <= start <= stop <= self.n_frames:
            what = f"has {self.n_frames} frames; {start + 1} to {stop} were asked for"
            raise InputError(self.path, what, "Ask for fewer.")
        if self._packed is not None:
            return self._packed.images(slice(start, stop))
        if not self.path.name.lower().endswith(_PACKED):
            return read_sections(self.path, start, stop, check=False)
        self._packed = open_stack(self.path)  # once is enough: it was read whole
        return self._packed.images(slice(start, stop))

    def raw_frames(self) -> NDArray[Any]:
        """All frames (n, y, x) in the file's own number type."""
        return read_array(self.path)[0]


class HeldMovie:
    """A movie whose frames were all read; they stay in the number type they are stored in (8 bits a pixel, mostly)."""

    def __init__(self, movie: Movie) -> None:
        self.path, self.shape, self.pixel_size = movie.path, movie.shape, movie.pixel_size
        self.n_frames, self.n_dropped = movie.n_frames, movie.n_dropped
        self._values = movie.raw_frames()

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start..stop-1 as float32 (n, y, x)."""
        if not 0 <= start <= stop <= self.n_frames:
            what = f"has {self.n_frames} frames; {start + 1} to {stop} were asked for"
            raise InputError(self.path, what, "Ask for fewer.")
        return self._values[start:stop].astype(np.float32)

    def raw_frames(self) -> NDArray[Any]:
        """All frames (n, y, x)."""
        return self._values


def open_movie(path: str | Path, eer_grouping: int = DEFAULT_GROUPING, eer_upsampling: int = 1) -> Movie:
    """Open a movie; only its headers are read.

    eer_grouping, eer_upsampling: raw frames a fraction, and 1 (4K) or 2 (8K), for EER alone.
    Raises InputError for files that are missing, cut short or of another format than their name says.
    """
    file = Path(path)
    name = file.name.lower()
    if name.endswith((".tif", ".tiff")):
        return TiffMovie(file)
    if name.endswith(".eer"):
        return EerMovie(file, eer_grouping, eer_upsampling)
    if name.endswith(MOVIE_ENDINGS):
        return MrcMovie(file)
    raise InputError(file, "is no movie by its name", f"Movies end in {', '.join(MOVIE_ENDINGS)}.")
