"""MRC images, maps and stacks: modes 0, 1, 2, 4, 6 and 12, either byte order, compressed, memory-mapped stacks.

Arrays are (y, x) or (z, y, x). A single image of a stack is named "000001@stack.mrcs", counted from 1.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.mrc_header import HEADER_BYTES, MrcHeader, make_header, parse_header
from vitreous.runtime.atomic import atomic_path

if TYPE_CHECKING:  # torch takes longer to import than a small image to read
    import torch

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MODE_OF: dict[str, int] = {"int8": 0, "int16": 1, "float32": 2, "complex64": 4, "uint16": 6, "float16": 12}


def split_name(name: str | Path) -> tuple[int | None, str]:
    """("000003@stack.mrcs") -> (2, "stack.mrcs"): the index from 0, None where the name is of a whole file."""
    number, at, file = str(name).partition("@")
    if not at:
        return None, number
    if not number.isdecimal() or int(number) < 1:
        raise InputError(str(name), "is no image name", "Images are named 000001@stack.mrcs, counted from 1.")
    return int(number) - 1, file


def read_header(path: str | Path) -> MrcHeader:
    """Read and check a header, the file's size included. Raises InputError where it is no whole MRC file."""
    file = Path(path)
    if file.suffix in _OPENERS:
        return parse_header(file, _read_bytes(file, HEADER_BYTES), None)
    try:
        with file.open("rb") as handle:
            return parse_header(file, handle.read(HEADER_BYTES), file.stat().st_size)
    except OSError as error:
        raise _unreadable(file, error) from error


def read_array(path: str | Path) -> tuple[NDArray[Any], MrcHeader]:
    """All data of a file as (sections, rows, columns), in its own number type and native byte order.

    Raises InputError for files that cannot be read, are cut short or hold NaN or infinity.
    """
    file = Path(path)
    if file.suffix in _OPENERS:
        raw = _read_bytes(file)
        header = parse_header(file, raw[:HEADER_BYTES], len(raw))
        flat = np.frombuffer(raw, header.dtype, int(np.prod(header.shape)), header.offset)
        array = flat.reshape(header.shape).astype(header.dtype.newbyteorder("="))
    else:
        header = read_header(file)
        array = _read_sections(file, header, 0, header.shape[0])
    check_finite(file, array)
    return array, header


def read_sections(path: str | Path, start: int, stop: int, *, check: bool = True) -> NDArray[np.float32]:
    """Sections start .. stop-1 of an uncompressed file as float32, by plain reading.

    A file that is cut short or taken away meanwhile is an InputError; reading a memory map of it would end the process.
    check: that all values are numbers (InputError), which is one more walk through them.
    """
    file = Path(path)
    header = read_header(file)
    array = _read_sections(file, header, start, stop)
    if array.dtype.kind == "c":
        raise InputError(file, "holds Fourier transforms (mode 4), not images", "Give images in real space.")
    if check:
        check_finite(file, array)
    return array.astype(np.float32, copy=False)


def _read_sections(file: Path, header: MrcHeader, start: int, stop: int) -> NDArray[Any]:
    """Sections in the file's own number type and native byte order."""
    shape = (stop - start, *header.shape[1:])
    before = start * int(np.prod(header.shape[1:])) * header.dtype.itemsize
    count = int(np.prod(shape))
    try:
        flat = np.fromfile(file, header.dtype, count, offset=header.offset + before)
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(flat) < count:
        raise InputError(file, "was cut short while it was read", "Make or copy it anew.")
    return flat.reshape(shape).astype(header.dtype.newbyteorder("="), copy=False)


def read_image(path: str | Path) -> tuple[NDArray[Any], float]:
    """An image (y, x), or all of a stack or map (z, y, x), as float32 (complex64 for transforms), and its pixel size.

    path: a file or "000001@stack.mrcs". The pixel size is in A, 0 where the header does not say.
    """
    index, name = split_name(path)
    if index is not None:
        with open_stack(name) as stack:
            return stack.images([index])[0], stack.pixel_size
    array, header = read_array(name)
    image = array if array.dtype.kind == "c" else array.astype(np.float32, copy=False)
    return (image[0] if header.shape[0] == 1 else image), header.pixel_size


def map_image(path: str | Path) -> tuple[NDArray[Any], float]:
    """The first image (y, x) of a file of our own as float32, mapped where it can be: read where it is touched."""
    header = read_header(path)
    array = np.memmap(path, header.dtype, "c", header.offset, header.shape)[0]
    return array.astype(np.float32, copy=False), header.pixel_size


def read_map(path: str | Path) -> Volume:
    """A cubic map (z, y, x). Axes that are stored in another order (MAPC, MAPR, MAPS) are put right.

    Raises InputError where it is not cubic or has no voxel size.
    """
    import torch

    array, header = read_array(path)
    array = to_xyz_order(array, header)
    if array.dtype.kind == "c":
        raise InputError(path, "holds a Fourier transform (mode 4), not a map", "Give a map in real space.")
    nz, ny, nx = array.shape
    if not nz == ny == nx:
        raise InputError(path, f"is {nx} x {ny} x {nz} voxels, not a cube", "Give a cubic map.")
    if header.pixel_size <= 0:
        raise InputError(path, "has no voxel size in its header", "Set it, e.g. relion_image_handler --rescale_angpix.")
    return Volume(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), header.pixel_size)


def to_xyz_order(array: NDArray[Any], header: MrcHeader) -> NDArray[Any]:
    """Transpose stored (sections, rows, columns) to (z, y, x)."""
    columns, rows, sections = header.axes
    stored = [sections, rows, columns]
    return array.transpose([stored.index(axis) for axis in (3, 2, 1)])


def write_image(path: str | Path, image: ArrayLike | torch.Tensor, pixel_size: float, float16: bool = False) -> None:
    """Write an image (y, x) or a stack (n, y, x), atomically.

    int8, int16, uint16 and complex64 stay what they are; all else becomes float32, or float16 (mode 12) if asked.
    """
    array = np.asarray(image)
    with StackWriter(path, pixel_size, float16=float16) as writer:
        writer.append(array[None] if array.ndim == 2 else array)


def write_map(path: str | Path, volume: Volume, float16: bool = False) -> None:
    """Write a map, atomically."""
    with StackWriter(path, volume.voxel_size, float16=float16, is_volume=True) as writer:
        writer.append(volume.density.detach().cpu().numpy())


class MrcStack:
    """Images of a stack (or sections of a map), read when asked for. Files over 2 GB are no different.

    len: number of images; shape: (n, y, x); pixel_size in A, 0 where the header does not say.
    """

    def __init__(self, path: Path, data: NDArray[Any], header: MrcHeader) -> None:
        self.path = path
        self.header = header
        self._data: NDArray[Any] | None = data

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, rows, columns)."""
        return self.header.shape

    @property
    def pixel_size(self) -> float:
        """Pixel size in A; 0 where the header does not say."""
        return self.header.pixel_size

    def __len__(self) -> int:
        return self.header.shape[0]

    def images(self, indices: Sequence[int] | NDArray[np.integer[Any]] | slice) -> NDArray[np.float32]:
        """Images (n, y, x) by index from 0, as float32. Raises InputError beyond the last one and for NaN."""
        if self._data is None:
            raise ValueError(f"{self.path} is closed")
        if not isinstance(indices, slice):
            chosen = np.asarray(indices, dtype=np.int64)
            outside = chosen[(chosen < 0) | (chosen >= len(self))]
            if len(outside):
                what = f"has {len(self)} images; number {outside[0] + 1} was asked for"
                raise InputError(self.path, what, "The STAR file and the stack do not belong together.")
            indices = chosen
        images = np.asarray(self._data[indices], dtype=np.float32)
        check_finite(self.path, images)
        return images

    def __getitem__(self, index: int | slice) -> NDArray[np.float32]:
        if isinstance(index, slice):
            return self.images(index)
        return self.images([index])[0]

    def close(self) -> None:
        """Let go of the file."""
        self._data = None

    def __enter__(self) -> MrcStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_stack(path: str | Path) -> MrcStack:
    """Open a stack: memory-mapped, or read whole if it is compressed (.gz, .bz2, .xz)."""
    file = Path(path)
    if file.suffix in _OPENERS:
        array, header = read_array(file)
    else:
        header = read_header(file)
        try:
            array = np.memmap(file, header.dtype, "r", header.offset, header.shape)
        except OSError as error:
            raise _unreadable(file, error) from error
    if array.dtype.kind == "c":
        raise InputError(file, "holds Fourier transforms (mode 4), not images", "Give images in real space.")
    return MrcStack(file, array, header)


class StackWriter:
    """Write images to a stack piece by piece; it appears under its name, whole, when the block ends well.

    The first piece sets the image size and number type. Used as a context manager.
    """

    def __init__(self, path: str | Path, pixel_size: float, *, float16: bool = False, is_volume: bool = False) -> None:
        self.path = Path(path)
        self.pixel_size = pixel_size
        self.n_images = 0
        self._float16 = float16
        self._is_volume = is_volume
        self._atomic = atomic_path(self.path)
        self._file: BinaryIO | None = None
        self._image_shape: tuple[int, int] | None = None
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        self._low, self._high = np.inf, -np.inf
        self._sum = self._sum2 = 0.0

    def __enter__(self) -> StackWriter:
        self._file = self._atomic.__enter__().open("wb")
        self._file.write(bytes(HEADER_BYTES))
        return self

    def append(self, images: ArrayLike | torch.Tensor) -> None:
        """Add one image (y, x) or several (n, y, x). Raises InputError where float16 cannot hold the values."""
        array = np.asarray(images)
        array = array[None] if array.ndim == 2 else array
        if self._file is None:
            raise ValueError("StackWriter is a context manager: use it in a with block")
        if self._image_shape is None:
            self._image_shape = (int(array.shape[1]), int(array.shape[2]))
            kept = array.dtype.name in _MODE_OF and array.dtype.kind in "iuc"
            wanted = array.dtype.newbyteorder("=") if kept else np.dtype(np.float16 if self._float16 else np.float32)
            self._dtype = wanted
        if array.shape[1:] != self._image_shape:
            raise ValueError(f"images of {array.shape[1:]} cannot join a stack of {self._image_shape}")
        if array.shape[0] == 0:
            return
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(array, dtype=self._dtype)
        if self._dtype == np.float16 and np.isinf(data).any():
            raise InputError(self.path, "would hold values beyond float16 (65504)", "Write it without float16.")
        self._file.write(data.astype(self._dtype.newbyteorder("<"), copy=False).tobytes())
        self.n_images += len(data)
        if data.dtype.kind != "c":
            self._low, self._high = min(self._low, float(data.min())), max(self._high, float(data.max()))
            for image in data:
                values = image.astype(np.float64)
                self._sum += float(values.sum())
                self._sum2 += float(np.square(values).sum())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        file = self._file
        if file is None:
            raise ValueError("StackWriter was not entered")
        try:
            if kind is None:
                file.seek(0)
                file.write(self._header())
            file.close()
        except BaseException as failure:
            self._atomic.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._atomic.__exit__(kind, error, trace)

    def _header(self) -> bytes:
        if self._image_shape is None:
            raise ValueError(f"{self.path}: a stack without images cannot be written")
        n = self.n_images * self._image_shape[0] * self._image_shape[1]
        statistics = (0.0, 0.0, 0.0, 0.0)
        if self._dtype.kind != "c":
            mean = self._sum / n
            statistics = (self._low, self._high, mean, max(self._sum2 / n - mean * mean, 0.0) ** 0.5)
        mode = _MODE_OF[self._dtype.name]
        shape = (self.n_images, *self._image_shape)
        return make_header(shape, mode, self.pixel_size, is_volume=self._is_volume, statistics=statistics)


def check_finite(path: Path, array: NDArray[Any]) -> None:
    """Raise InputError where an image holds NaN or infinity."""
    if array.dtype.kind not in "fc":
        return
    with np.errstate(all="ignore"):
        # A sum shows most of it at a tenth of the cost of looking at every pixel; at most it is too large for its type.
        if np.isfinite(np.sum(array, dtype=np.promote_types(array.dtype, np.float32))):
            return
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise InputError(path, f"holds {bad} values that are NaN or infinite", "Make or copy it anew.")


def _read_bytes(file: Path, size: int = -1) -> bytes:
    """The first bytes (all by default) of a compressed file."""
    try:
        with _OPENERS[file.suffix](file, "rb") as handle:
            return handle.read(size)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise _unreadable(file, error) from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(file, f"cannot be decompressed ({error})", "Make or copy it anew.") from error


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(file, f"cannot be read ({error.strerror})", "Check the name and the permissions.")
