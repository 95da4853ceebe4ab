"""How well a map agrees with the true one: alignment, then FSC within the truth's own envelope."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vitreous.core.fsc import fsc, fsc_resolution
from vitreous.data.volume import Volume
from vitreous.methods.maps.align import Alignment, align_map, apply_alignment
from vitreous.methods.maps.solvent_mask import make_mask


@dataclass(frozen=True)
class TruthFsc:
    """curve: FSC of map and truth per shell of the truth's box, within a soft mask made from the truth.

    resolution_05: A, where it falls below 0.5, the level that corresponds to 0.143 between half-maps (Rosenthal and
    Henderson (2003) J. Mol. Biol. 333, 721); resolution_0143: the same at 0.143. aligned: the map in the truth's frame.
    """

    curve: Float[Tensor, "n_shells"]
    resolution_05: float
    resolution_0143: float
    alignment: Alignment
    aligned: Volume


def truth_fsc(density: Volume, truth: Volume, *, symmetry: str = "C1", mask_resolution: float = 15.0) -> TruthFsc:
    """Align a map to the truth (rotation, shift, hand) and compare them.

    The mask is the truth low-passed to mask_resolution (A), cut at its automatic threshold, grown by 3 A and
    softened over 9 A: the same whatever the map, so no map can shape it in its favour.
    """
    alignment = align_map(density, truth, symmetry=symmetry)
    aligned = apply_alignment(density, alignment, truth)
    voxel = truth.voxel_size
    mask = make_mask(
        truth.density, voxel, lowpass_resolution=mask_resolution, extend=3.0 / voxel, edge=9.0 / voxel, fill_holes=True
    ).mask
    curve = fsc(aligned.density.double() * mask, truth.density.double() * mask)
    return TruthFsc(
        curve,
        fsc_resolution(curve, truth.box, voxel, 0.5),
        fsc_resolution(curve, truth.box, voxel, 0.143),
        alignment,
        aligned,
    )
