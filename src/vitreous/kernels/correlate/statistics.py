"""What a search keeps of its correlations at every pixel, and how two searches' results become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

_TENSORS = ("maximum", "best", "sum_squares", "template_sum")
_TRIMMED = ("cut", "count", "total", "squares")


@dataclass
class TrimmedSums:
    """Sums over the correlations below the pixel's `cut` alone: its noise, where a molecule is found too."""

    cut: Float[Tensor, "valid_y valid_x"]
    count: Int[Tensor, "valid_y valid_x"]
    total: Float[Tensor, "valid_y valid_x"]
    squares: Float[Tensor, "valid_y valid_x"]

    @staticmethod
    def empty(cut: Float[Tensor, "valid_y valid_x"]) -> TrimmedSums:
        """Before any correlation."""
        zeros = [torch.zeros_like(cut, dtype=dtype) for dtype in (torch.int32, torch.float64, torch.float64)]
        return TrimmedSums(cut.to(torch.float32), *zeros)


@dataclass
class Statistics:
    """Running statistics over all correlations so far, at each valid position (y, x).

    maximum: the highest correlation (MIP). best: the number of its template, -1 before any. sum_squares: float64.
    template_sum: sum of all templates, float64; the sum of all correlations is the correlation with it, so that no map
    of sums is kept. count: correlations taken up. trimmed: the same sums without the highest correlations, if wanted.
    """

    maximum: Float[Tensor, "valid_y valid_x"]
    best: Int[Tensor, "valid_y valid_x"]
    sum_squares: Float[Tensor, "valid_y valid_x"]
    template_sum: Float[Tensor, "box box"]
    count: int = 0
    trimmed: TrimmedSums | None = None

    @staticmethod
    def empty(
        shape: tuple[int, int], box: int, *, trim: Tensor | None = None, device: torch.device | None = None
    ) -> Statistics:
        """Before any correlation. shape: of the maps (y, x). trim: cuts (y, x) of the trimmed sums."""
        return Statistics(
            torch.full(shape, -torch.inf, dtype=torch.float32, device=device),
            torch.full(shape, -1, dtype=torch.int32, device=device),
            torch.zeros(shape, dtype=torch.float64, device=device),
            torch.zeros(box, box, dtype=torch.float64, device=device),
            trimmed=None if trim is None else TrimmedSums.empty(trim.to(device)),
        )

    def count_templates(self, templates: Float[Tensor, "m box box"], twins: Int[Tensor, "m"] | None) -> None:
        """Add templates (and the twins that were correlated) to the sum of all."""
        total = templates.sum(0, dtype=torch.float64)
        self.template_sum += total
        self.count += len(templates)
        if twins is not None:
            present = (twins >= 0).to(templates.device)
            chosen = total if bool(present.all()) else templates[present].sum(0, dtype=torch.float64)
            self.template_sum += invert(chosen)
            self.count += int(present.sum())

    def merge(self, other: Statistics) -> None:
        """Take up another search's results; the order of merging does not change the maxima."""
        higher = other.maximum > self.maximum
        tie = (other.maximum == self.maximum) & (other.best >= 0) & ((other.best < self.best) | (self.best < 0))
        take = higher | tie
        self.maximum = torch.where(take, other.maximum, self.maximum)
        self.best = torch.where(take, other.best, self.best)
        self.sum_squares += other.sum_squares
        self.template_sum += other.template_sum
        self.count += other.count
        if self.trimmed is not None and other.trimmed is not None:
            self.trimmed.count += other.trimmed.count
            self.trimmed.total += other.trimmed.total
            self.trimmed.squares += other.trimmed.squares

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as named arrays, for a checkpoint."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        if self.trimmed is not None:
            tensors |= {f"trimmed_{name}": getattr(self.trimmed, name) for name in _TRIMMED}
        plain: dict[str, NDArray[np.generic]] = {k: v.detach().cpu().numpy() for k, v in tensors.items()}
        return {**plain, "count": np.array(self.count)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[np.generic]], device: torch.device | None = None) -> Statistics:
        """Undo `arrays`."""
        tensors = {name: torch.from_numpy(np.array(arrays[name])).to(device) for name in _TENSORS}
        trimmed = None
        if "trimmed_cut" in arrays:
            parts = [torch.from_numpy(np.array(arrays[f"trimmed_{name}"])).to(device) for name in _TRIMMED]
            trimmed = TrimmedSums(*parts)
        return Statistics(**tensors, count=int(arrays["count"]), trimmed=trimmed)


def invert(templates: Float[Tensor, "*batch box box"]) -> Float[Tensor, "*batch box box"]:
    """Turn about the box centre n//2 by 180 degrees (the first row and column stay where they are)."""
    return torch.roll(templates.flip(-2, -1), (1, 1), (-2, -1))
