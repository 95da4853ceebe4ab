"""Images in one flat file of float32: written in batches, read back by index, the rest from where they came from."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.images import ImageSource
from vitreous.runtime.progress import track

log = logging.getLogger(__name__)
_BATCH_BYTES = 32 << 20
_ROOM = 1 << 20  # left for the description where the disk fills
FULL = (errno.ENOSPC, errno.EDQUOT)


def image_bytes(box: int) -> int:
    """Bytes of one image in the file."""
    return 4 * box * box


def write_images(origin: ImageSource, path: Path, count: int) -> int:
    """Copy the first `count` images; returns how many whole ones are there at the end: fewer where the disk fills."""
    each = image_bytes(origin.box)
    batch = max(1, _BATCH_BYTES // each)
    starts = range(0, count, batch)
    with path.open("wb", buffering=0) as file:
        try:
            for start in track(starts, "copying to scratch", len(starts)):
                images = origin[np.arange(start, min(start + batch, count))]
                _write_all(file.fileno(), images.contiguous().numpy().data.cast("B"))
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in FULL:
                raise
            whole = max(0, (file.tell() - _ROOM) // each)
            log.warning("the scratch disk is full: %d of %d images are on it", whole, count)
            file.truncate(whole * each)
            return int(whole)
    return count


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]


class ScratchImages:
    """images[indices] (an ImageSource) from a flat file that holds the first n_copied, the others from the origin.

    A file that can no longer be read is said once and left alone; the origin has all there is. Not memory-mapped:
    what is cut short under a map would end the process.
    """

    def __init__(self, path: Path, n_copied: int, origin: ImageSource) -> None:
        self._path = path
        self._n_copied = n_copied
        self._origin = origin
        self._handle = os.open(path, os.O_RDONLY)

    @property
    def box(self) -> int:
        """Side of the square images in pixels."""
        return self._origin.box

    @property
    def pixel_size(self) -> float:
        """Pixel size in A."""
        return self._origin.pixel_size

    def __len__(self) -> int:
        return len(self._origin)

    def __getitem__(self, indices: Int[np.ndarray, "n"]) -> Float[Tensor, "n box box"]:
        wanted = np.asarray(indices, dtype=np.int64)
        copied = np.flatnonzero(wanted < self._n_copied)
        if not len(copied):
            return self._origin[wanted]
        images = np.empty((len(wanted), self.box, self.box), dtype=np.float32)
        try:
            self._read(images, copied[np.argsort(wanted[copied], kind="stable")], wanted)
        except OSError as error:
            log.warning("%s: %s; reading from the origin", self._path, error.strerror or error)
            self._n_copied = 0
            return self._origin[wanted]
        rest = np.flatnonzero(wanted >= self._n_copied)
        if len(rest):
            images[rest] = self._origin[wanted[rest]].numpy()
        return torch.from_numpy(images)

    def close(self) -> None:
        """Let go of the file; images come from the origin from now on."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._n_copied = -1, 0

    def _read(self, images: NDArray[np.float32], rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> None:
        each = image_bytes(self.box)
        for row in rows.tolist():
            view = images[row].data.cast("B")
            if os.preadv(self._handle, [view], int(wanted[row]) * each) != each:
                raise OSError(errno.EIO, "is cut short")
