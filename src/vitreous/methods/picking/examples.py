"""Patches to learn from: around labelled particles, and anywhere at all; turned and mirrored at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitreous.methods.picking.network import PickerNetwork, padded

_PATCH = 5  # outputs on a side around a labelled particle: its disc of labelled pixels fits
_CROP = 48  # outputs on a side of a crop for unlabelled pixels
_FROM_CROP = 256  # of which so many are used: neighbours say the same


@dataclass(frozen=True)
class LabelledMicrograph:
    """A micrograph as the network sees it, where it is clean, and what was picked: (y, x) in its pixels."""

    image: Float[np.ndarray, "height width"]
    clean: Bool[np.ndarray, "height width"]
    picks: Float[np.ndarray, "n 2"]


@dataclass(frozen=True)
class Batch:
    """Patches with the pixels (flat, of the network's output) that count in each."""

    positive: Float[Tensor, "p side side"]
    labelled: Bool[Tensor, "p 25"]
    unlabelled: Float[Tensor, "u crop crop"]
    drawn: Int[Tensor, "u k"]
    usable: Bool[Tensor, "u k"]


def _dihedral(side: int) -> Int[Tensor, "8 2 side side"]:
    """Offsets (y, x) of a window's pixels from its centre, turned by quarter turns, and mirrored."""
    axis = torch.arange(side) - side // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    turns = []
    for _ in range(4):
        turns += [torch.stack([y, x]), torch.stack([y, -x])]
        y, x = x, -y
    return torch.stack(turns)


class Examples:
    """All micrographs of a training set in one line of memory; batches are cut out of it by index.

    radius: pixels around a pick that are labelled, at most 2. Raises ValueError where there is no pick, or a
    micrograph is too small.
    """

    def __init__(self, micrographs: list[LabelledMicrograph], radius: float) -> None:
        self._radius, margin = radius, PickerNetwork.margin
        images = [padded(torch.from_numpy(np.ascontiguousarray(m.image, dtype=np.float32))) for m in micrographs]
        self._pixels = torch.cat([image.ravel() for image in images])
        clean = [np.pad(m.clean, margin) for m in micrographs]
        self._clean = torch.cat([torch.from_numpy(one).ravel() for one in clean])
        self._width = torch.tensor([image.shape[1] for image in images])
        self._start = torch.tensor([0, *np.cumsum([image.numel() for image in images])[:-1].tolist()])
        self._shape = torch.tensor([m.image.shape for m in micrographs])
        owners = [np.full(len(m.picks), index) for index, m in enumerate(micrographs)]
        self._owner = torch.from_numpy(np.concatenate(owners)).to(torch.int64)
        self._picks = torch.from_numpy(np.concatenate([m.picks for m in micrographs]).reshape(-1, 2)) + margin
        if not len(self._picks):
            raise ValueError("there are no picks to learn from")
        self._fine = _dihedral(_PATCH)
        self._patch = _dihedral(_PATCH + 2 * margin)
        self._crop = _dihedral(_CROP + 1 + 2 * margin)
        self._inner = _dihedral(_CROP + 1)

    def batch(self, n_positive: int, n_unlabelled: int, generator: torch.Generator) -> Batch:
        """Patches around n_positive picks drawn at random, and n_unlabelled pixels drawn from anywhere."""
        pick = torch.randint(len(self._picks), (n_positive,), generator=generator)
        owner, place = self._owner[pick], self._picks[pick]
        centre = place.round().to(torch.int64)
        turn = torch.randint(8, (n_positive,), generator=generator)
        positive = self._cut(self._pixels, owner, centre, self._patch[turn])
        away = (centre[:, :, None, None] + self._fine[turn] - place[:, :, None, None]).square().sum(1).sqrt()
        labelled = (away <= self._radius).flatten(1)
        n_crops = -(-n_unlabelled // _FROM_CROP)
        area = self._shape.prod(1).to(torch.float64)
        owner = torch.multinomial(area, n_crops, replacement=True, generator=generator)
        centre = (torch.rand((n_crops, 2), generator=generator, dtype=torch.float64) * self._shape[owner]).long()
        centre += PickerNetwork.margin
        turn = torch.randint(8, (n_crops,), generator=generator)
        unlabelled = self._cut(self._pixels, owner, centre, self._crop[turn])
        usable = self._cut(self._clean, owner, centre, self._inner[turn], outside=False).flatten(1)
        drawn = torch.stack([torch.randperm(usable.shape[1], generator=generator)[:_FROM_CROP] for _ in range(n_crops)])
        return Batch(positive, labelled, unlabelled, drawn, usable.gather(1, drawn))

    def _cut(
        self,
        line: Tensor,
        owner: Int[Tensor, "n"],
        centre: Int[Tensor, "n 2"],
        offsets: Int[Tensor, "n 2 side side"],
        outside: bool | None = None,
    ) -> Tensor:
        """Windows of the padded micrographs; beyond their border the nearest pixel, or `outside`."""
        highest = self._shape[owner] + 2 * PickerNetwork.margin - 1
        place = centre[:, :, None, None] + offsets
        held = torch.minimum(place.clamp(min=0), highest[:, :, None, None])
        index = self._start[owner][:, None, None] + held[:, 0] * self._width[owner][:, None, None] + held[:, 1]
        cut = line[index]
        return cut if outside is None else torch.where((held == place).all(1), cut, torch.tensor(outside))
