"""TIFF images and movies in RELION's orientation.

RELION, MotionCor2 and IMOD turn the slow axis (y) of a TIFF upside down on reading and writing, so that a TIFF
and the MRC it was made from are the same array. So do all functions here.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import ArrayLike, NDArray

from vitreous.core.errors import InputError
from vitreous.runtime.atomic import atomic_path

log = logging.getLogger(__name__)
# tifffile tells of every odd tag (SerialEM's, Falcon's); what matters is reported by us.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_CENTIMETRE = 3  # resolution unit
_ANGSTROM_PER_CM = 1e8
_PLAUSIBLE_PIXEL = (0.05, 50.0)  # A: other values are dots per inch of some image program
_FAULTS = (
    tifffile.TiffFileError,
    ValueError,
    RuntimeError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    EOFError,
    AttributeError,
    MemoryError,
    OverflowError,
    ZeroDivisionError,
)
MAX_SIDE = 100_000  # pixels: no detector has more, a damaged file may say so
Compression = Literal["lzw", "deflate", "none"]


@contextmanager
def tiff_faults(path: Path) -> Iterator[None]:
    """Turn what tifffile and imagecodecs raise for broken files into one InputError."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise InputError(path, what, "Check the name and the permissions.") from error
    except _FAULTS as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(path, f"is no whole TIFF file ({reason})", "Make or copy it anew.") from error


class TiffMovie:
    """Frames of a TIFF file, read one by one.

    n_frames; shape (y, x); pixel_size in A or None; n_dropped raw frames that belong to no frame (none in a TIFF).
    """

    n_dropped = 0

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with tiff_faults(self.path), tifffile.TiffFile(self.path) as tiff:
            first = tiff.pages[0].aspage()
            self.n_frames = len(tiff.pages)
            self.shape = _page_shape(self.path, first)
            self.pixel_size = _pixel_size(first)
            _check_length(self.path, tiff)

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start..stop-1 as float32 (n, y, x)."""
        movie = np.empty((stop - start, *self.shape), dtype=np.float32)
        for frame, values in zip(movie, self._pages(start, stop), strict=True):
            frame[:] = values
        return movie

    def raw_frames(self) -> NDArray[Any]:
        """All frames (n, y, x) in the file's own number type, by one pass over the file."""
        pages = self._pages(0, self.n_frames)
        first = next(pages)
        movie = np.empty((self.n_frames, *self.shape), dtype=first.dtype)
        movie[0] = first
        for frame, values in zip(movie[1:], pages, strict=True):
            frame[:] = values
        return movie

    def _pages(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Frame after frame in the file's own number type."""
        _check_range(self.path, start, stop, self.n_frames)
        with tiff_faults(self.path), tifffile.TiffFile(self.path) as tiff:
            for index in range(start, stop):
                page = tiff.pages[index].aspage()
                if _page_shape(self.path, page) != self.shape:
                    what = f"has frames of different sizes ({_page_shape(self.path, page)} and {self.shape})"
                    raise InputError(self.path, what, "Make or copy it anew.")
                values = page.asarray()[::-1]
                # Counts are always numbers; a sum shows what is not at a tenth of the cost of looking at each pixel.
                if values.dtype.kind == "f" and not np.isfinite(values.sum(dtype=np.float64)):
                    raise InputError(self.path, "holds values that are NaN or infinite", "Make or copy it anew.")
                yield values


def read_tiff(path: str | Path) -> tuple[NDArray[Any], float | None]:
    """The first image of a TIFF file (y, x) in its own number type, and its pixel size in A if it has one."""
    file = Path(path)
    with tiff_faults(file), tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0].aspage()
        _page_shape(file, page)
        return np.ascontiguousarray(page.asarray()[::-1]), _pixel_size(page)


def write_tiff(
    path: str | Path, frames: ArrayLike, pixel_size: float | None = None, compression: Compression = "lzw"
) -> None:
    """Write an image (y, x) or movie (n, y, x), atomically; number types as numpy's, one page a frame."""
    array = np.asarray(frames)
    array = array[None] if array.ndim == 2 else array
    options: dict[str, Any] = {"compression": None if compression == "none" else compression, "metadata": None}
    if pixel_size:
        per_cm = _ANGSTROM_PER_CM / pixel_size
        options |= {"resolution": (per_cm, per_cm), "resolutionunit": _CENTIMETRE}
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=array.nbytes > 2**31) as writer:
        for frame in array:
            writer.write(np.ascontiguousarray(frame[::-1]), photometric="minisblack", **options)


def _page_shape(path: Path, page: Any) -> tuple[int, int]:
    if len(page.shape) != 2 or page.dtype is None or page.dtype.kind not in "iuf":
        raise InputError(path, f"holds images of shape {page.shape}, not grey images", "Give a movie of counts.")
    ny, nx = int(page.shape[0]), int(page.shape[1])
    if not (0 < ny <= MAX_SIDE and 0 < nx <= MAX_SIDE):
        raise InputError(path, f"says it has {nx} x {ny} pixels", "Make or copy it anew.")
    return ny, nx


def _pixel_size(page: Any) -> float | None:
    """From the resolution tags, where IMOD and SerialEM put it; None where they hold dots per inch or nothing."""
    tags = page.tags
    if "XResolution" not in tags or "ResolutionUnit" not in tags or tags["ResolutionUnit"].value != _CENTIMETRE:
        return None
    numerator, denominator = tags["XResolution"].value
    if not numerator or not denominator:
        return None
    size = _ANGSTROM_PER_CM * denominator / numerator
    return float(f"{size:.6g}") if _PLAUSIBLE_PIXEL[0] < size < _PLAUSIBLE_PIXEL[1] else None


def _check_length(path: Path, tiff: tifffile.TiffFile) -> None:
    """The last frame's data must lie within the file: a copy that was cut short shows here, before any work."""
    size = path.stat().st_size
    last = tiff.pages[len(tiff.pages) - 1].aspage()
    ends = [o + n for o, n in zip(last.dataoffsets, last.databytecounts, strict=True)]
    if not ends or max(ends) > size:
        raise InputError(path, f"is truncated ({size} bytes)", "Make or copy it anew.")


def _check_range(path: Path, start: int, stop: int, n_frames: int) -> None:
    if not 0 <= start <= stop <= n_frames:
        raise InputError(path, f"has {n_frames} frames; {start + 1} to {stop} were asked for", "Ask for fewer.")
