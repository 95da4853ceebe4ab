"""Correlation on the CPU: Fourier transforms of our own on sixteen columns, then sixteen rows, at once.

For a few templates at once: transform the box's rows (the others are zero); sixteen columns at a time transform,
multiply with the image's by the conjugate (and by the plain spectrum for the twin) and transform back; then, sixteen
rows at a time, transform the valid rows back and reduce them to one maximum, number and sum of squares a pixel before
the running maps are touched. docs/matching.md has what else was tried, and the figures.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitreous.kernels.correlate.butterflies import LANES
from vitreous.kernels.correlate.columns import columns_back
from vitreous.kernels.correlate.prepared import SearchImage
from vitreous.kernels.correlate.rows import reduce_rows
from vitreous.kernels.correlate.statistics import Statistics

_BATCH_BYTES = 256 << 20  # of half-transformed correlations
_MOST_TEMPLATES = 8


def correlate(
    image: SearchImage,
    templates: Float[Tensor, "m box box"],
    numbers: Int[Tensor, "m"],
    twins: Int[Tensor, "m"] | None,
    statistics: Statistics,
) -> None:
    """See kernels.correlate.correlate; float32 transforms, float64 sums of squares."""
    at_once = min(templates_at_once(image), len(templates) + len(templates) % 2)
    labels = np.full((len(templates), 1 + (twins is not None)), -1, np.int32)
    labels[:, 0] = numbers.numpy()
    if twins is not None:
        labels[:, 1] = twins.numpy()
    space = _Workspace(image, at_once, labels.shape[1])
    for start in range(0, len(templates), at_once):
        some = templates[start : start + at_once]
        space.padded[: len(some), :, : image.box] = some
        torch.fft.rfft(space.padded, out=space.rows_ft)
        _take_up(image, space, labels[start : start + at_once], statistics)


def templates_at_once(image: SearchImage) -> int:
    """How many templates go together: more save passes over the running maps, fewer stay in the cache. Even."""
    each = 16 * image.valid_shape[0] * (image.padded[1] // 2 + 1)
    return max(2, min(_MOST_TEMPLATES, _BATCH_BYTES // each) // 2 * 2)


def working_bytes(image: SearchImage) -> int:
    """Memory that `correlate` takes beside its inputs, in bytes."""
    count, half = templates_at_once(image), image.padded[1] // 2 + 1
    arrays = count * half * (16 * (image.valid_shape[0] + LANES) + 16 * image.box)
    return arrays + numba.get_num_threads() * LANES * (16 * image.padded[0] + 20 * image.padded[1])


class _Workspace:
    """Arrays that are used again for every few templates: fresh memory would cost as much as the arithmetic.

    per_template: 1, or 2 with twins. done: correlations transformed back along y, (y blocks, signals, half, 2, 16).
    """

    def __init__(self, image: SearchImage, count: int, per_template: int) -> None:
        (height, width), (valid_y, valid_x) = image.padded, image.valid_shape
        half, threads = width // 2 + 1, numba.get_num_threads()
        self.padded = torch.zeros(count, image.box, width)  # beyond the box it stays zero
        self.rows_ft = torch.zeros(count, image.box, half, dtype=torch.complex64)
        self.done = np.empty((-(-valid_y // LANES), count * per_template, half, 2, LANES), np.float32)
        self.columns = np.zeros((threads, 2, height + LANES, 2, LANES), np.float32)
        self.rows = np.empty((threads, width, 2, LANES), np.float32), np.empty((threads, valid_x, 3, LANES), np.float32)


def _take_up(image: SearchImage, space: _Workspace, labels: NDArray[np.int32], statistics: Statistics) -> None:
    """Correlate with the templates in space.rows_ft; labels (templates, 1 or 2)."""
    with_twins, count = labels.shape[1] == 2, len(labels) + len(labels) % 2
    done = space.done[:, : count * labels.shape[1]]
    blocked = image.blocked
    if blocked is None:
        raise ValueError("the image was not prepared for the CPU")
    columns_back(space.rows_ft[:count].numpy(), blocked, done, space.columns, with_twins=with_twins)
    padded = np.full((count, labels.shape[1]), -1, np.int32)
    padded[: len(labels)] = labels
    running = statistics.maximum.numpy(), statistics.best.numpy(), statistics.sum_squares.numpy()
    trimmed = None
    if (sums := statistics.trimmed) is not None:
        trimmed = sums.cut.numpy(), sums.count.numpy(), sums.total.numpy(), sums.squares.numpy()
    offsets = (0, image.box if with_twins else 0)
    reduce_rows(done, blocked.rows, padded.reshape(-1), offsets, running, trimmed, space.rows)
