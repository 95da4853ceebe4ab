"""EER: the electron events of Thermo Fisher's Falcon cameras, rendered as frames.

Guo et al. (2020) IUCrJ 7, 860. Each raw frame is a run-length list of events on the sensor (4096 x 4096) with two
more bits of position each way. Raw frames are summed in groups; those left over at the end are dropped, as
RELION does. Unlike TIFF movies, EER frames are not turned upside down.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.io.eer_events import add_events
from vitreous.io.tiff import MAX_SIDE, tiff_faults

log = logging.getLogger(__name__)

_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2)}  # compression -> bits of skip, x and y position
_VARIABLE = 65002  # the bits stand in tags
_BIT_TAGS = (65007, 65008, 65009)
_MOST_BITS = 16  # of one code; cameras use 7 to 9 and 2
_MAX_COUNT = 65535  # raw frames that fit in uint16, one event a pixel and frame
_METRE = 1e10  # A
_Segment = tuple[int, int, tuple[int, int, int]]  # offset, length, bits of skip, x and y
DEFAULT_GROUPING = 40  # raw frames a fraction, RELION's


def frames_per_fraction(dose_per_raw_frame: float, dose_per_fraction: float) -> int:
    """Raw frames to sum for about this dose (e/A^2) a fraction, at least one."""
    if dose_per_raw_frame <= 0 or dose_per_fraction <= 0:
        raise InputError("EER dose", "must be positive", "Give the dose per raw frame and per fraction in e/A^2.")
    return max(1, round(dose_per_fraction / dose_per_raw_frame))


class EerMovie:
    """Frames of an EER file.

    grouping: raw frames summed to one frame. upsampling: 1 for the sensor's own grid (4K), 2 for half pixels (8K).
    n_raw_frames; n_frames; n_dropped raw frames at the end; shape (y, x) and pixel_size in A (None if the file does
    not say) on the rendered grid.
    """

    def __init__(self, path: str | Path, grouping: int = DEFAULT_GROUPING, upsampling: int = 1) -> None:
        self.path = Path(path)
        if upsampling not in (1, 2):
            raise InputError("EER upsampling", f"is {upsampling}", "Choose 1 (4K) or 2 (8K).")
        if not 1 <= grouping <= _MAX_COUNT:
            raise InputError("EER grouping", f"is {grouping}", "Sum 1 to 65535 raw frames a fraction.")
        self.grouping = grouping
        self.upsampling = upsampling
        with tiff_faults(self.path), tifffile.TiffFile(self.path) as tiff:
            self._read_pages(tiff)
        self.n_raw_frames = len(self._segments)
        self.n_frames = self.n_raw_frames // grouping
        self.n_dropped = self.n_raw_frames - self.n_frames * grouping
        if self.n_frames == 0:
            what = f"has {self.n_raw_frames} raw frames, fewer than one group of {grouping}"
            raise InputError(self.path, what, "Choose a smaller grouping.")
        if self.n_dropped:
            log.info("%s: %d raw frames at the end are dropped", self.path, self.n_dropped)

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Frames start..stop-1 as float32 counts (n, y, x)."""
        if not 0 <= start <= stop <= self.n_frames:
            what = f"has {self.n_frames} frames; {start + 1} to {stop} were asked for"
            raise InputError(self.path, what, "Ask for fewer.")
        return self._counts(start, stop).astype(np.float32)

    def raw_frames(self) -> NDArray[Any]:
        """All frames (n, y, x) as counts."""
        return self._counts(0, self.n_frames)

    def _counts(self, start: int, stop: int) -> NDArray[np.uint16]:
        movie = np.zeros((stop - start, *self.shape), dtype=np.uint16)
        with tiff_faults(self.path), self.path.open("rb") as handle:
            for index, counts in enumerate(movie, start):
                for segment in self._segments[index * self.grouping : (index + 1) * self.grouping]:
                    self._add(handle, segment, counts)
        return movie

    def _add(self, handle: BinaryIO, segment: _Segment, counts: NDArray[np.uint16]) -> None:
        offset, length, (skip_bits, x_bits, y_bits) = segment
        handle.seek(offset)
        data = np.frombuffer(handle.read(length), dtype=np.uint8)
        if len(data) < length or add_events(data, skip_bits, (x_bits, y_bits), self.upsampling, counts) < 0:
            raise InputError(self.path, "is truncated: a frame's events end too early", "Make or copy it anew.")

    def _read_pages(self, tiff: tifffile.TiffFile) -> None:
        self._segments: list[_Segment] = []
        sensor: tuple[int, int] | None = None
        for number in range(len(tiff.pages)):
            # Newer cameras put a summed image first; only pages of events count.
            page = tiff.pages[number].aspage()
            bits = _event_bits(page)
            if bits is None:
                continue
            sensor = sensor or (int(page.shape[0]), int(page.shape[1]))
            odd_bits = not (1 <= bits[0] <= _MOST_BITS and 1 <= min(bits[1:]) <= max(bits[1:]) <= _MOST_BITS)
            odd_shape = tuple(page.shape[:2]) != sensor or max(sensor) > MAX_SIDE
            if len(page.dataoffsets) != 1 or odd_bits or odd_shape:
                raise InputError(self.path, f"has an odd page ({number + 1})", "Make or copy it anew.")
            self._segments.append((int(page.dataoffsets[0]), int(page.databytecounts[0]), bits))
        if sensor is None:
            raise InputError(self.path, "holds no electron events", "Give an EER movie.")
        last = self._segments[-1]
        if last[0] + last[1] > self.path.stat().st_size:
            raise InputError(self.path, "is truncated", "Make or copy it anew.")
        self.shape = (sensor[0] * self.upsampling, sensor[1] * self.upsampling)
        self.pixel_size = _pixel_size(tiff.pages[0].aspage(), self.upsampling)


def _event_bits(page: Any) -> tuple[int, int, int] | None:
    compression = int(page.compression)
    if compression == _VARIABLE:
        skip, x, y = (int(page.tags[tag].value) for tag in _BIT_TAGS)
        return skip, x, y
    return _BITS.get(compression)


def _pixel_size(page: Any, upsampling: int) -> float | None:
    """The sensor pixel size that the camera writes in metres, on the rendered grid."""
    try:
        metadata = page.eer_tags or {}
        size = float(metadata["sensorPixelSize.width"]) * _METRE / upsampling
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return float(f"{size:.6g}") if size > 0 else None
