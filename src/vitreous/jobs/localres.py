"""Local resolution and a locally filtered map."""

from __future__ import annotations

from typing import Any

import torch

from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.half_maps import read_half_maps, read_matching_mask
from vitreous.io.mrc import read_map, write_map
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.methods.maps.half_map_fsc import half_map_fsc
from vitreous.methods.maps.local_resolution import Window, local_resolution
from vitreous.methods.maps.sharpening import Sharpening, sharpen


class LocalresParameters(JobParameters):
    """What `localres` takes."""

    input: str = parameter(help="first half-map, e.g. run_half1_class001_unfil.mrc", aliases=("i",))
    mask: str = parameter(help="solvent mask: windows are centred inside it")
    map_to_filter: str | None = parameter(
        None, help="map to filter locally (default: the half-maps' average, sharpened by --b-factor)"
    )
    pixel_size: float | None = parameter(
        None, help="voxel size (default: the header's)", unit="A", aliases=("angpix",), gt=0
    )
    b_factor: float | None = parameter(
        None, help="B factor of the filtered map (default: fitted)", unit="A^2", aliases=("adhoc_bfac",)
    )
    sampling: float = parameter(25.0, help="distance of the windows", unit="A", aliases=("locres_sampling",), gt=0)
    window_radius: float | None = parameter(
        None, help="radius of a window (default: half the sampling)", unit="A", aliases=("locres_maskrad",), gt=0
    )
    window_edge: float | None = parameter(
        None,
        help="soft edge of a window (default: the sampling)",
        unit="A",
        aliases=("locres_edgwidth",),
        advanced=True,
        gt=0,
    )
    randomise_at: float = parameter(
        10.0, help="randomise phases beyond this resolution", unit="A", aliases=("locres_randomize_at",), gt=0
    )
    worst: float = parameter(
        50.0, help="no place is called worse than this", unit="A", aliases=("locres_minres",), advanced=True, gt=0
    )


class Localres(Job):
    """FSC 0.143 in soft spherical windows over the map (Cardone et al. 2013 J. Struct. Biol. 184, 226)."""

    name = "localres"
    folder = "LocalRes"
    relion_type = "relion.localres.own"
    help = "measure the resolution in each place of a map, and filter it accordingly"
    Parameters = LocalresParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write relion_locres.mrc (A per voxel) and relion_locres_filtered.mrc."""
        half1, half2 = read_half_maps(context.project / params.input)
        voxel_size = params.pixel_size or half1.voxel_size
        mask = read_matching_mask(context.project / params.mask, half1).density
        result = local_resolution(
            half1.density,
            half2.density,
            voxel_size,
            mask,
            _to_filter(params, context, half1, half2, mask, voxel_size),
            Window(params.sampling, params.window_radius, params.window_edge, params.randomise_at, params.worst),
            generator=context.generator(),
            max_bytes=min(context.memory // 4, 1 << 30),
        )
        maps = {"relion_locres.mrc": result.resolution, "relion_locres_filtered.mrc": result.filtered}
        for name, density in maps.items():
            write_map(context.directory / name, Volume(density, voxel_size))
        best, median, worst = result.percentile(10), result.median(), result.percentile(90)
        return Outputs(
            nodes={context.relative(context.directory / name): "DensityMap.mrc.relion.localres" for name in maps},
            metrics={
                "local_resolution_median_A": median,
                "local_resolution_p10_A": best,
                "local_resolution_p90_A": worst,
                "n_windows": int(result.sampled.numel()),
            },
            summary=f"median {median:.2f} A; from {best:.2f} (best tenth) to {worst:.2f} A (worst tenth)",
        )


def _to_filter(
    params: LocalresParameters,
    context: Context,
    half1: Volume,
    half2: Volume,
    mask: torch.Tensor,
    voxel_size: float,
) -> torch.Tensor:
    """The map that is filtered: the user's, or the average of the halves with its B factor and no other filter."""
    if params.map_to_filter:
        path = context.project / params.map_to_filter
        volume = read_map(path)
        if volume.box != half1.box:
            raise InputError(path, f"its box is {volume.box}, the half-maps' {half1.box}", "Give a map of the same box")
        return volume.density
    curves = half_map_fsc(half1.density, half2.density, voxel_size, mask, generator=context.generator())
    how = Sharpening(b_factor=params.b_factor, fsc_weighting=False, lowpass=2.0 * voxel_size)
    return sharpen(half1.density, half2.density, curves, how).density
