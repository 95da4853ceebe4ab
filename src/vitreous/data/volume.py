"""A map in real space with its voxel size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float

if TYPE_CHECKING:  # files are read by programs that need no torch
    from torch import Tensor


@dataclass(frozen=True)
class Volume:
    """Density (z, y, x), float32, cubic; voxel_size in A; the particle's centre at index n//2."""

    density: Float[Tensor, "box box box"]
    voxel_size: float

    @property
    def box(self) -> int:
        """Side of the cube in voxels."""
        return int(self.density.shape[-1])
