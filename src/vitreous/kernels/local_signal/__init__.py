"""Where in a map, and at which detail, two halves agree: the local signal-to-noise ratio, band by band.

A band is a soft range of Fourier shells. In it, around each voxel, with a Gaussian window a given number of
wavelengths wide, the two halves' cross-power over their mean power is the local FSC: the factor by which one half
predicts the other best (leave-one-half-out), and the share of signal in its power.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vitreous.kernels.local_signal import fast, reference
from vitreous.kernels.local_signal.bands import Band, band_edges, bands, chance_variance

__all__ = ["Band", "LocalSignal", "band_edges", "bands", "chance_variance", "damp_bands", "local_fsc"]


@dataclass(frozen=True)
class LocalSignal:
    """One band's local FSC. values: on a grid that holds the band (side <= box), centred as maps are.

    variance: of a value where there is no signal at all.
    """

    band: Band
    values: Float[Tensor, "side side side"]
    variance: float


def local_fsc(
    half_maps: Float[Tensor, "2 box box box"], every: Sequence[Band], *, reach: float
) -> Iterator[LocalSignal]:
    """The local FSC of two unregularised half-maps in each band.

    reach: standard deviation of the window in wavelengths of the band. float64 maps are taken by the reference, on
    the whole grid; float32 ones by the fast form, on the grid that each band needs.
    """
    form = reference if half_maps.dtype == torch.float64 else fast
    box = half_maps.shape[-1]
    first, second = (form.transform(one) for one in half_maps)
    for band in every:
        values = form.local_fsc(first, second, band, box, reach)
        yield LocalSignal(band, values, chance_variance(band, box, reach))


def damp_bands(
    map_ft: Complex[Tensor, "box box half"], gains: Sequence[tuple[Band, Float[Tensor, "side side side"]]], box: int
) -> Complex[Tensor, "box box half"]:
    """Each band of a map times its own gain at each voxel, and the sum of the bands, as a transform.

    gains: on grids as `local_fsc` gives them. Bands that are not among them come out empty.
    """
    form = reference if map_ft.dtype == torch.complex128 else fast
    out = torch.zeros_like(map_ft)
    for band, gain in gains:
        form.add_damped(out, map_ft, band, gain, box)
    return out
