"""Cut particle windows out of a micrograph."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def window_centres(coordinates: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, "n 2"]:
    """Pixel (y, x) at index box//2 of the window of each coordinate (x, y in pixels of the micrograph).

    Fractions are dropped, as `relion_preprocess` does: a window is never interpolated.
    """
    return np.trunc(np.asarray(coordinates, dtype=np.float64))[:, ::-1].astype(np.int64)


def touches_micrograph(centres: Int[np.ndarray, "n 2"], box: int, shape: tuple[int, int]) -> Bool[np.ndarray, "n"]:
    """Whether any pixel of each window lies on a micrograph of shape (y, x)."""
    start = centres - box // 2
    return np.all((start + box > 0) & (start < np.asarray(shape)), axis=1)


def share_inside(centres: Int[np.ndarray, "n 2"], box: int, shape: tuple[int, int]) -> Float[np.ndarray, "n"]:
    """Share of each window's pixels that lie on a micrograph of shape (y, x)."""
    start = centres - box // 2
    overlap = np.minimum(start + box, np.asarray(shape)) - np.maximum(start, 0)
    return np.prod(np.clip(overlap, 0, box), axis=1) / box**2


def cut_windows(
    micrograph: Float[Tensor, "height width"], centres: Int[np.ndarray, "n 2"], box: int
) -> Float[Tensor, "n box box"]:
    """Windows of side box around centres (y, x); beyond the edge the nearest pixel is repeated, as RELION does.

    Raises ValueError where a window lies wholly outside.
    """
    height, width = micrograph.shape
    if not touches_micrograph(centres, box, (height, width)).all():
        raise ValueError("a window lies wholly outside the micrograph")
    device = micrograph.device
    offset = torch.arange(box, device=device) - box // 2
    where = torch.from_numpy(np.ascontiguousarray(centres)).to(device)
    rows = (where[:, :1] + offset).clamp(0, height - 1)
    columns = (where[:, 1:] + offset).clamp(0, width - 1)
    return micrograph[rows[:, :, None], columns[:, None, :]]
