"""Taking a frame in, a step at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def take_frame(
    raw: Tensor, gain: Tensor | None, frame: Tensor, total: Tensor, binned: Tensor | None, factor: int
) -> bool:
    """See `vitreous.kernels.take_frame.take_frame`; any precision."""
    frame.copy_(raw if gain is None else raw * gain)
    total += frame
    if binned is not None:
        height, width = binned.shape
        inside = frame[: height * factor, : width * factor]
        binned.copy_(inside.reshape(height, factor, width, factor).sum((1, 3)))
    return bool(torch.isfinite(frame).all())
