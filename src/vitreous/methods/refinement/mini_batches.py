"""Learning from a few particles at a time: how many, how much of what was learnt before is kept.

The sums of a mini-batch and their Wiener solution are the step that Newton's method would take for it; running sums
with a forgetting factor are its momentum. Batches grow and the factor falls, so that the first look is quick and the
last one steady. Kimanius et al. (2021) Biochem. J. 478, 4169; Punjani et al. (2017) Nat. Methods 14, 290.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.methods.refinement.preprocess import NoiseModel


class Sums(Protocol):
    """What slices are summed into (VolumeAccumulator, ImageAccumulator)."""

    data: Tensor
    weight: Tensor


SumsT = TypeVar("SumsT", bound=Sums)


@dataclass(frozen=True)
class BatchPlan:
    """Sizes and steps over a run; fractions and limits are RELION's.

    A first part of the iterations (initial_fraction) takes small batches and large steps, a last one (final_fraction)
    large batches and small steps; in between both go over. share: of all particles in a batch, at first and at last,
    within limits; initial_batch, final_batch: numbers that replace these (0: none). least: particles in any batch.
    """

    initial_fraction: float = 0.3
    final_fraction: float = 0.2
    initial_batch: int = 0
    final_batch: int = 0
    initial_step: float = 0.9
    final_step: float = 0.5
    initial_share: float = 0.005
    final_share: float = 0.1
    initial_limits: tuple[int, int] = (200, 5000)
    final_limits: tuple[int, int] = (500, 50000)
    least: int = 1

    def part(self, done: float) -> float:
        """How far between the first phase (0) and the last (1), when this fraction of the iterations is done."""
        middle = 1.0 - self.initial_fraction - self.final_fraction
        return float(np.clip((done - self.initial_fraction) / max(middle, 1e-6), 0.0, 1.0))

    def size(self, done: float, n: int) -> int:
        """Particles in a batch, of n."""
        small = self.initial_batch or int(np.clip(self.initial_share * n, *self.initial_limits))
        large = self.final_batch or int(np.clip(self.final_share * n, *self.final_limits))
        small, large = max(small, self.least), max(small, large, self.least)
        return min(n, round(min(small, n) + self.part(done) * (min(large, n) - min(small, n))))

    def step(self, done: float) -> float:
        """Share of the new batch in the running sums."""
        return self.initial_step + self.part(done) * (self.final_step - self.initial_step)


def draw(n: int, size: int, generator: torch.Generator) -> NDArray[np.int64]:
    """A batch of `size` of n particles, in rising order."""
    return np.sort(torch.randperm(n, generator=generator)[:size].numpy())


def blend(old: SumsT, new: SumsT, kept: float, added: float) -> SumsT:
    """Running sums: a share of the old ones and a multiple of the new."""
    return replace(  # type: ignore[type-var]
        old, data=kept * old.data + added * new.data, weight=kept * old.weight + added * new.weight
    )


def blend_noise(old: NoiseModel, new: NoiseModel, rate: float) -> NoiseModel:
    """Running average of the noise."""
    return NoiseModel((1 - rate) * old.sigma2 + rate * new.sigma2)
