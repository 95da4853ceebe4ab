"""What is done to 2D averages between iterations: bring them to the middle, give dead ones another chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitreous.core.fourier import lowpass, to_fourier, to_real
from vitreous.methods.refinement.particles import Poses


def centres_of(references: Float[Tensor, "k box box"]) -> Float[Tensor, "k 2"]:
    """Where (y, x), from the box centre in pixels, each average's centre of positive density lies; a tenth at most."""
    box = references.shape[-1]
    axis = torch.arange(box, dtype=torch.float32) - box // 2
    density = references.clamp(min=0.0)
    total = density.sum((1, 2)).clamp(min=1e-30)
    centres = torch.stack([(density.sum(2) * axis).sum(1), (density.sum(1) * axis).sum(1)], 1) / total[:, None]
    return centres.clamp(-0.1 * box, 0.1 * box)


def follow_centres(poses: Poses, centres: Float[Tensor, "k 2"]) -> Poses:
    """Origins of particles whose averages were moved by -centres.

    A feature at c in the average lies at A c in the particle, so the origin that centres it is less by A c.
    """
    c = centres.numpy()[poses.classes].astype(np.float64)
    along = np.einsum("nij,nj->ni", poses.rotations[:, :2, :2], c[:, ::-1])
    return replace(poses, origins=poses.origins - along[:, ::-1])


def dead_classes(distribution: Float[Tensor, "k"]) -> Bool[Tensor, "k"]:
    """Classes with less than a tenth of their even share: nothing in them can win particles back."""
    return distribution < 0.1 / len(distribution)


def donors(distribution: Float[Tensor, "k"]) -> dict[int, int]:
    """For each dead class the one that it becomes a copy of: by size, a donor counting half after each copy."""
    share = distribution.clone()
    found = {}
    for dead in torch.nonzero(dead_classes(distribution)).flatten().tolist():
        found[dead] = int(share.argmax())
        share[found[dead]] /= 2
    return found


def revive_classes(
    references: Float[Tensor, "k box box"], donor_of: Mapping[int, int], generator: torch.Generator
) -> Float[Tensor, "k box box"]:
    """Give classes that lost their particles another chance: each becomes a disturbed copy of a large class.

    Large classes are mixtures of views, and two slightly different copies drift apart to the views in them. The
    disturbance is smooth noise of a third of the average's own spread.
    """
    box = references.shape[-1]
    out = references.clone()
    smooth = lowpass((box, box), 1.0, box / 6.0).to(torch.float32)
    for dead, donor in donor_of.items():
        field = to_real(to_fourier(torch.randn(box, box, generator=generator)) * smooth, (box, box))
        out[dead] = references[donor] * (1.0 + 0.33 * field / field.std())
    return out
