"""Where particle images come from: anything that answers images[indices]."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class ImageSource(Protocol):
    """Particle images by index, wherever they lie (disk, memory, scratch)."""

    @property
    def box(self) -> int:
        """Side of the square images in pixels."""
        ...

    @property
    def pixel_size(self) -> float:
        """Pixel size in A."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Int[np.ndarray, "n"]) -> Float[Tensor, "n box box"]:
        """float32 images on the CPU, in the order of indices."""
        ...


class ArraySource:
    """Images that are already in memory."""

    def __init__(self, images: Float[Tensor, "n box box"], pixel_size: float) -> None:
        self._images = images
        self._pixel_size = pixel_size

    @property
    def box(self) -> int:
        """Side of the square images in pixels."""
        return int(self._images.shape[-1])

    @property
    def pixel_size(self) -> float:
        """Pixel size in A."""
        return self._pixel_size

    def __len__(self) -> int:
        return int(self._images.shape[0])

    def __getitem__(self, indices: Int[np.ndarray, "n"]) -> Float[Tensor, "n box box"]:
        return self._images[torch.from_numpy(np.asarray(indices, dtype=np.int64))].to(torch.float32)
