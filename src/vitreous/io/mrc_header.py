"""The MRC header: read permissively (what programs really write), written as MRC2014 says.

Cheng et al. (2015) J. Struct. Biol. 192, 146. MotionCor2 leaves out the MAP stamp and SerialEM stores unsigned
bytes in mode 0; both are read, with one warning a file.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from vitreous import __version__
from vitreous.core.errors import InputError

log = logging.getLogger(__name__)

HEADER_BYTES = 1024
MODES: dict[int, str] = {0: "i1", 1: "i2", 2: "f4", 4: "c8", 6: "u2", 12: "f2"}
_IMOD_STAMP = 1146047817
_REFUSED = {
    3: "complex 16-bit integers (mode 3)",
    16: "RGB bytes (mode 16)",
    101: "4-bit packed counts (mode 101, SerialEM)",
}
_MAX_SIDE = 1_000_000


@dataclass(frozen=True)
class MrcHeader:
    """What matters of a header. shape: sections, rows, columns as stored. voxel_size: (x, y, z) in A, 0 if not set.

    axes: which of x, y, z (1, 2, 3) runs along columns, rows, sections. offset: bytes before the data.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    mode: int
    voxel_size: tuple[float, float, float]
    axes: tuple[int, int, int]
    space_group: int
    sections_per_volume: int
    offset: int
    extended_type: str

    @property
    def pixel_size(self) -> float:
        """Voxel size along x in A; 0 where the header does not say."""
        return self.voxel_size[0]

    @property
    def data_bytes(self) -> int:
        """Bytes that the data must have."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def parse_header(path: Path, raw: bytes, file_size: int | None) -> MrcHeader:
    """Parse the first 1,024 bytes of a file. Raises InputError where they are no MRC header or promise another size.

    file_size: bytes of the whole (uncompressed) file, None if not known.
    """
    if len(raw) < HEADER_BYTES:
        raise InputError(path, f"is no MRC file: {len(raw)} bytes, a header alone has 1024", "Make or copy it anew.")
    order = _byte_order(path, raw)
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw, 0)
    if mode in _REFUSED:
        raise InputError(path, f"holds {_REFUSED[mode]}", "Convert it, e.g. with newstack -mode 1.")
    if mode not in MODES:
        raise InputError(path, f"is no MRC file (data mode {mode})", "Give an MRC file.")
    if not (0 < nx < _MAX_SIDE and 0 < ny < _MAX_SIDE and nz > 0):
        raise InputError(path, f"has a header that says {nx} x {ny} x {nz} pixels", "Make or copy it anew.")
    mx, my, mz = struct.unpack_from(order + "3i", raw, 28)
    cell = struct.unpack_from(order + "3f", raw, 40)
    axes = struct.unpack_from(order + "3i", raw, 64)
    space_group, extended = struct.unpack_from(order + "2i", raw, 88)
    header = MrcHeader(
        shape=(nz, ny, nx),
        dtype=_dtype(path, raw, order, mode),
        mode=mode,
        voxel_size=_voxel_size(cell, (mx, my, mz)),
        axes=axes if sorted(axes) == [1, 2, 3] else (1, 2, 3),
        space_group=space_group,
        sections_per_volume=mz,
        offset=HEADER_BYTES + max(extended, 0),
        extended_type=raw[104:108].decode("latin-1").strip("\0 "),
    )
    if raw[208:211] != b"MAP":
        _warn_once(path, "no MAP stamp in the header (old or written by MotionCor2); read all the same")
    if file_size is not None:
        _check_size(path, header, file_size)
    return header


@lru_cache(maxsize=4096)
def _warn_once(path: Path, message: str) -> None:
    """Headers are read more than once; a user should hear of an odd one once."""
    log.warning("%s: %s", path, message)


def _byte_order(path: Path, raw: bytes) -> str:
    stamp = {b"\x44": "<", b"\x11": ">"}.get(raw[212:213])
    candidates = [stamp, "<", ">"] if stamp else ["<", ">"]
    for order in candidates:
        nx, ny, nz, mode = struct.unpack_from(order + "4i", raw, 0)
        if (mode in MODES or mode in _REFUSED) and 0 < nx < _MAX_SIDE and 0 < ny < _MAX_SIDE and nz >= 0:
            return order
    nx, ny, nz, mode = struct.unpack_from("<4i", raw, 0)
    raise InputError(
        path, f"is no MRC file (its header says {nx} x {ny} x {nz} pixels of mode {mode})", "Give an MRC file."
    )


def _dtype(path: Path, raw: bytes, order: str, mode: int) -> np.dtype[np.generic]:
    stamp, flags = struct.unpack_from(order + "2i", raw, 152)
    if mode == 0 and stamp == _IMOD_STAMP and not flags & 1:
        _warn_once(path, "bytes are unsigned (IMOD stamp); read so")
        return np.dtype("u1")
    return np.dtype(order + MODES[mode])


def _voxel_size(cell: tuple[float, ...], intervals: tuple[int, int, int]) -> tuple[float, float, float]:
    size = [c / m if m > 0 and np.isfinite(c) and c > 0 else 0.0 for c, m in zip(cell, intervals, strict=True)]
    # The cell is stored in float32: seven digits are all there is, and 0.885 must not become 0.88500005.
    x, y, z = (float(f"{value:.6g}") for value in size)
    return x, y, z


def _check_size(path: Path, header: MrcHeader, file_size: int) -> None:
    expected = header.offset + header.data_bytes
    nz, ny, nx = header.shape
    says = f"its header ({nx} x {ny} x {nz}, mode {header.mode}) needs {expected} bytes, the file has {file_size}"
    if file_size < expected:
        raise InputError(path, f"is truncated: {says}", "Make or copy it anew.")
    section = header.data_bytes // nz
    if file_size >= expected + section:
        raise InputError(path, f"is longer than it should be: {says}", "Make or copy it anew.")
    if file_size > expected:
        _warn_once(path, f"{file_size - expected} bytes after the data are ignored")


def make_header(
    shape: tuple[int, int, int],
    mode: int,
    voxel_size: float,
    *,
    is_volume: bool,
    statistics: tuple[float, float, float, float],
) -> bytes:
    """A little-endian MRC2014 header. statistics: minimum, maximum, mean, standard deviation.

    Stacks have space group 0 and mz 1, volumes 1 and nz.
    """
    nz, ny, nx = shape
    mz = nz if is_volume else 1
    raw = bytearray(HEADER_BYTES)
    struct.pack_into("<10i", raw, 0, nx, ny, nz, mode, 0, 0, 0, nx, ny, mz)
    struct.pack_into("<6f", raw, 40, nx * voxel_size, ny * voxel_size, mz * voxel_size, 90.0, 90.0, 90.0)
    low, high, mean, deviation = statistics
    struct.pack_into("<3i3f2i", raw, 64, 1, 2, 3, low, high, mean, 1 if is_volume else 0, 0)
    struct.pack_into("<i", raw, 108, 20141)
    raw[208:216] = b"MAP \x44\x44\x00\x00"
    struct.pack_into("<f", raw, 216, deviation)
    label = f"vitreous {__version__}".encode("ascii")[:80]
    struct.pack_into("<i", raw, 220, 1)
    raw[224 : 224 + 80] = label.ljust(80)
    return bytes(raw)
