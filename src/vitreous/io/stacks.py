"""Particle images of a dataset, gathered from however many stacks they lie in."""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.mrc import MrcStack, open_stack

_PIXEL_TOLERANCE = 1e-4  # relative: sizes that only rounding tells apart are one size
_OPEN_STACKS = 64  # file descriptors held at a time


class ParticleStack:
    """images[indices] of a particle dataset (an ImageSource).

    Requests are grouped by file and read in the file's order through memory maps. Paths in the dataset are
    relative to `project`. Raises InputError for stacks that are missing, too short, or of different box sizes.
    """

    def __init__(self, dataset: Dataset, project: str | Path) -> None:
        if "image_name" not in dataset.rows:
            raise InputError("particles", "have no _rlnImageName column", "Extract them first.")
        self._project = Path(project)
        self._files, self._file_of, self._slice_of = _locate(dataset.rows["image_name"])
        self._open: OrderedDict[int, MrcStack] = OrderedDict()
        self._lock = threading.Lock()
        if not len(self._file_of):
            raise InputError("particles", "are none", "Give a STAR file with particles.")
        first = self._stack(int(self._file_of[0]))
        self._box = first.shape[2]
        self._pixel_size = _pixel_size(dataset, first)
        self._check_box(first)
        stated = np.unique(dataset.optics_of_rows("box")) if "box" in dataset.optics else np.array([self._box])
        if (stated != self._box).any():
            what = f"holds images of {self._box} pixels, the STAR file says {', '.join(map(str, stated))}"
            raise InputError(first.path, what, "The STAR file and the stack do not belong together.")

    @property
    def box(self) -> int:
        """Side of the square images in pixels."""
        return self._box

    @property
    def pixel_size(self) -> float:
        """Pixel size in A: the optics table's, else the first stack's."""
        return self._pixel_size

    def __len__(self) -> int:
        return len(self._file_of)

    def __getitem__(self, indices: Int[np.ndarray, "n"]) -> Float[Tensor, "n box box"]:
        wanted = np.asarray(indices, dtype=np.int64)
        files = self._file_of[wanted]
        images = np.empty((len(wanted), self._box, self._box), dtype=np.float32)
        order = np.lexsort((self._slice_of[wanted], files))
        bounds = np.flatnonzero(np.diff(files[order], prepend=-1))
        for start, stop in pairwise([*bounds.tolist(), len(order)]):
            rows = order[start:stop]
            images[rows] = self._stack(int(files[rows[0]])).images(self._slice_of[wanted[rows]])
        return torch.from_numpy(images)

    def check(self) -> None:
        """Open every stack once: all there, whole, of one box size and long enough. Raises InputError."""
        longest = np.zeros(len(self._files), dtype=np.int64)
        np.maximum.at(longest, self._file_of, self._slice_of + 1)
        for index, needed in enumerate(longest):
            stack = self._stack(index)
            if needed > len(stack):
                what = f"has {len(stack)} images; number {needed} was asked for"
                raise InputError(stack.path, what, "The STAR file and the stack do not belong together.")

    def _stack(self, index: int) -> MrcStack:
        with self._lock:
            if index in self._open:
                self._open.move_to_end(index)
                return self._open[index]
        stack = open_stack(self._project / self._files[index])
        if hasattr(self, "_box"):
            self._check_box(stack)
        with self._lock:
            self._open[index] = stack
            if len(self._open) > _OPEN_STACKS:
                # Not closed here: another thread may be reading it. The map goes with its last reference.
                self._open.popitem(last=False)
        return stack

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: a memory map would be sent to another process as a copy of the whole stack."""
        return {**self.__dict__, "_open": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _check_box(self, stack: MrcStack) -> None:
        _, ny, nx = stack.shape
        if (ny, nx) != (self._box, self._box):
            what = f"holds images of {nx} x {ny} pixels, the first stack of {self._box} x {self._box}"
            raise InputError(stack.path, what, "Extract all particles with one box size.")


def open_stacks(dataset: Dataset, project: str | Path) -> list[tuple[NDArray[np.int64], ParticleStack]]:
    """The images of each optics group that has any: its rows and their source; sizes may differ between groups.

    Raises InputError where there are no particles, and what ParticleStack raises.
    """
    if not len(dataset):
        raise InputError("particles", "are none", "Give a STAR file with particles.")
    found = []
    for row, group in enumerate(dataset.optics["optics_group"]):
        members = np.flatnonzero(dataset.rows["optics_group"] == group)
        if len(members):
            one = Dataset(dataset.kind, dataset.optics.take([row]), dataset.rows.take(members))
            found.append((members, ParticleStack(one, project)))
    return found


def stacks_of(dataset: Dataset, project: str | Path) -> list[Path]:
    """The files that the images of a dataset lie in."""
    return [Path(project) / file for file in _locate(dataset.rows["image_name"])[0]]


def _locate(names: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names "000001@stack.mrcs" to distinct files, file of each image, index from 0 within it."""
    numbers = np.empty(len(names), dtype=np.int64)
    files = np.empty(len(names), dtype=np.int64)
    known: dict[str, int] = {}
    for row, name in enumerate(names.tolist()):
        number, at, file = name.partition("@")
        if not at or not number.isdecimal() or int(number) < 1:
            raise InputError(str(name), "is no image name", "Images are named 000001@stack.mrcs, counted from 1.")
        numbers[row] = int(number) - 1
        files[row] = known.setdefault(file, len(known))
    return list(known), files, numbers


def _pixel_size(dataset: Dataset, stack: MrcStack) -> float:
    if "pixel_size" in dataset.optics:
        sizes = np.unique(dataset.optics_of_rows("pixel_size"))
        if np.ptp(sizes) > _PIXEL_TOLERANCE * sizes[0]:
            what = f"have {len(sizes)} pixel sizes ({sizes.min():.4f} to {sizes.max():.4f} A)"
            raise InputError("particles", what, "Read each optics group by itself (open_stacks).")
        return float(sizes[0])
    if stack.pixel_size <= 0:
        raise InputError(stack.path, "has no pixel size, nor has the STAR file", "Add _rlnImagePixelSize.")
    return stack.pixel_size
