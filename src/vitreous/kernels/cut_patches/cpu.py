"""Cutting patches in one walk: numba, patches shared out among threads; arrays flat and their indices unsigned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.threads import in_threads

Floats = NDArray[np.float32]


@njit(inline="always", cache=True, fastmath=True, nogil=True)
def _copy(image: Floats, start: np.uint64, out: Floats, to: np.uint64, n: np.uint64) -> np.float32:
    """Copy n pixels; their sum."""
    total = np.float32(0.0)
    for x in range(n):
        value = image[start + x]
        out[to + x] = value
        total += value
    return total


@njit(inline="always", cache=True, fastmath=True, nogil=True)
def _under_window(out: Floats, to: np.uint64, mean: np.float32, row: np.float32, columns: Floats) -> None:
    for x in range(columns.size):
        out[to + np.uint64(x)] = (out[to + np.uint64(x)] - mean) * (row * columns[x])


@njit(cache=True, fastmath=True, nogil=True)
def _cut(
    image: Floats, shape: tuple[int, int], corner: tuple[int, int], rows: Floats, columns: Floats, out: Floats, to: int
) -> None:
    height, width = shape
    n = columns.size
    y, x = corner[0] % height, corner[1] % width
    before = min(n, width - x)  # columns before the image's edge
    total = 0.0
    for j in range(rows.size):
        line, here = (y + j) % height * width, to + j * n
        total += float(_copy(image, np.uint64(line + x), out, np.uint64(here), np.uint64(before)))
        if before < n:
            total += float(_copy(image, np.uint64(line), out, np.uint64(here + before), np.uint64(n - before)))
    mean = np.float32(total / (rows.size * n))
    for j in range(rows.size):
        _under_window(out, np.uint64(to + j * n), mean, rows[j], columns)


def cut_patches(image: Tensor, corners: Sequence[tuple[int, int]], window: tuple[Tensor, Tensor], out: Tensor) -> None:
    """See `vitreous.kernels.cut_patches.cut_patches`; patches no larger than the image, float32, out contiguous."""
    pixels, target = image.to(torch.float32).reshape(-1).numpy(), out.view(-1).numpy()
    rows, columns = (edge.to(torch.float32).contiguous().numpy() for edge in window)
    shape, size = (image.shape[0], image.shape[1]), rows.size * columns.size

    def part(patches: slice) -> None:
        for number in range(patches.start, patches.stop):
            _cut(pixels, shape, corners[number], rows, columns, target, number * size)

    in_threads(part, len(corners))
