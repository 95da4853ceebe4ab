"""From the sums of two independent halves to their maps: FSC, priors from it, regularised references.

Scheres and Chen (2012) Nat. Methods 9, 853; Scheres (2012) J. Struct. Biol. 180, 519, section 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.kernels.backproject import VolumeAccumulator
from vitreous.methods.refinement.auto_refine_state import AutoRefineOptions
from vitreous.methods.refinement.reconstruct import (
    Reconstruction,
    join_low_resolution,
    reconstruct,
    shell_weight,
)
from vitreous.methods.refinement.regularise import Evidence
from vitreous.methods.refinement.solvent import flatten_solvent, mask_then_filter

_LEAST_FSC, _MOST_FSC = 0.001, 0.999


@dataclass(frozen=True)
class HalfResult:
    """What one half's sums say. density: the regularised, masked reference; tau2 and sigma2 by shell."""

    density: Float[Tensor, "box box box"]
    tau2: Float[Tensor, "shells"]
    sigma2: Float[Tensor, "shells"]


@dataclass(frozen=True)
class GoldStandard:
    """Two halves compared. curve: FSC by shell; unfiltered: the unregularised half-maps (2, box, box, box)."""

    curve: Float[Tensor, "shells"]
    unfiltered: Float[Tensor, "halves box box box"]
    halves: tuple[HalfResult, HalfResult]


def signal_to_noise(curve: Float[Tensor, "shells"]) -> Float[Tensor, "shells"]:
    """SSNR of a map from the FSC of two like it: FSC / (1 - FSC), float64."""
    bounded = curve.to(torch.float64).clamp(_LEAST_FSC, _MOST_FSC)
    return bounded / (1.0 - bounded)


def whole_map_fsc(curve: Float[Tensor, "shells"]) -> Float[Tensor, "shells"]:
    """Expected correlation of the whole map with the truth, sqrt(2 FSC / (1 + FSC)) (Rosenthal, Henderson 2003)."""
    positive = curve.to(torch.float64).clamp(min=0.0)
    return (2.0 * positive / (1.0 + positive)).sqrt()


def compare_halves(
    completed: tuple[VolumeAccumulator, VolumeAccumulator],
    pixel_size: float,
    options: AutoRefineOptions,
    iteration: int,
) -> GoldStandard:
    """FSC of the two halves' completed sums and each half's regularised map.

    The FSC is taken before the halves share their low resolution.
    """
    plain = Reconstruction(gridding_iterations=options.gridding_iterations)
    unfiltered = torch.stack([reconstruct(half, options=plain) for half in completed])
    curve = options.half_map_fsc(unfiltered[0], unfiltered[1]).to(torch.float64)
    max_shell = completed[0].max_radius
    curve = torch.where(torch.arange(len(curve)) <= max_shell, curve, torch.zeros_like(curve))
    join_shell = int(completed[0].box * pixel_size / options.join_halves) if options.join_halves > 0 else 0
    joined = join_low_resolution(completed[0], completed[1], join_shell)
    results = regularised(joined, curve, unfiltered, pixel_size, options, iteration)
    return GoldStandard(curve, unfiltered, (results[0], results[1]))


def regularised(
    sums: tuple[VolumeAccumulator, ...],
    curve: Float[Tensor, "shells"],
    half_maps: Float[Tensor, "halves box box box"],
    pixel_size: float,
    options: AutoRefineOptions,
    iteration: int,
) -> list[HalfResult]:
    """Maps of `sums` by the regulariser asked for, solvent flattened; tau2 makes the SSNR what the FSC says.

    Shells that were not compared come out empty. One sum stands for both halves together, and is no reference: its
    solvent is to be flat. References know in no shell more than the halves agree on there (see `mask_then_filter`).
    """
    weights = [shell_weight(one) for one in sums]
    sigma2 = tuple(torch.where(w > 0, 1.0 / w.clamp(min=1e-300), 0.0) for w in weights)
    tau2 = tuple(signal_to_noise(curve) * one for one in sigma2)
    how = Reconstruction(options.tau2_fudge, options.gridding_iterations)
    evidence = Evidence(sums, tau2, sigma2, curve, half_maps, how, iteration, whole=len(sums) == 1)
    maps = options.regularise(evidence)
    if options.mask is None or evidence.whole:
        densities = [flatten_solvent(one, pixel_size, options.diameter, options.mask) for one in maps]
    else:
        ratio = options.tau2_fudge * signal_to_noise(curve)
        densities = [mask_then_filter(one, options.mask, ratio / (1.0 + ratio)) for one in maps]
    return [HalfResult(*one) for one in zip(densities, tau2, sigma2, strict=True)]


def combine(
    completed: tuple[VolumeAccumulator, VolumeAccumulator],
    gold: GoldStandard,
    pixel_size: float,
    options: AutoRefineOptions,
    iteration: int,
) -> HalfResult:
    """The map of both halves together, regularised with the SSNR expected of the whole."""
    both = replace(
        completed[0],
        data=completed[0].data + completed[1].data,
        weight=completed[0].weight + completed[1].weight,
    )
    return regularised((both,), whole_map_fsc(gold.curve), gold.unfiltered, pixel_size, options, iteration)[0]
