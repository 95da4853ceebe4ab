"""From sums to references: what a regulariser is given, and the classic one.

The shell-wise prior, the adaptive one (`adaptive_prior.py`) and programs of the user's are functions of one form, so
that auto-refine need not know which of them makes its references.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.methods.refinement.reconstruct import Reconstruction, reconstruct


@dataclass(frozen=True)
class Evidence:
    """All that a regulariser may look at.

    sums: completed; of each half (which may share their low resolution), or, `whole`, of both together. tau2, sigma2:
    prior and error variance of each one's map, by shell. curve: FSC of the halves (of the whole map: with the truth).
    half_maps: of the halves, without a prior and without a shared part. iteration: from 1.
    """

    sums: tuple[VolumeAccumulator, ...]
    tau2: tuple[Float[Tensor, "shells"], ...]
    sigma2: tuple[Float[Tensor, "shells"], ...]
    curve: Float[Tensor, "shells"]
    half_maps: Float[Tensor, "halves box box box"]
    how: Reconstruction
    iteration: int
    whole: bool = False


Regulariser = Callable[[Evidence], list[Float[Tensor, "box box box"]]]


def classic(evidence: Evidence) -> list[Float[Tensor, "box box box"]]:
    """One prior for each shell, the same everywhere: a Wiener filter (Scheres 2012, J. Mol. Biol. 415, 406)."""
    pairs = zip(evidence.sums, evidence.tau2, strict=True)
    return [reconstruct(sums, tau2, evidence.how) for sums, tau2 in pairs]
