"""Post-process two half-maps: mask-corrected FSC, sharpening, final low-pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.fsc_xml import write_fsc_xml
from vitreous.io.half_maps import other_half, read_half_maps, read_matching_mask
from vitreous.io.mrc import write_map
from vitreous.io.relion import read_table, write_tables
from vitreous.job import Context, Job, JobParameters, Outputs, parameter
from vitreous.methods.maps.half_map_fsc import HalfMapFsc, half_map_fsc
from vitreous.methods.maps.sharpening import Guinier, Mtf, SharpenedMap, Sharpening, sharpen


class PostprocessParameters(JobParameters):
    """What `postprocess` takes."""

    input: str = parameter(help="first half-map, e.g. run_half1_class001_unfil.mrc", aliases=("i",))
    mask: str | None = parameter(None, help="solvent mask (default: none, and no correction for one)")
    pixel_size: float | None = parameter(
        None, help="voxel size (default: the header's)", unit="A", aliases=("angpix",), gt=0
    )
    b_factor: float | None = parameter(
        None, help="sharpen by this (negative sharpens; default: fitted)", unit="A^2", aliases=("adhoc_bfac",)
    )
    fit_lowres: float = parameter(
        10.0, help="low-resolution end of the B factor fit", unit="A", aliases=("autob_lowres",), gt=0
    )
    fit_highres: float | None = parameter(
        None,
        help="high-resolution end of the B factor fit (default: the map's resolution)",
        unit="A",
        aliases=("autob_highres",),
        gt=0,
    )
    mtf: str | None = parameter(None, help="MTF of the detector (STAR file)")
    mtf_pixel_size: float | None = parameter(
        None, help="pixel size of the detector (default: the voxel size)", unit="A", aliases=("mtf_angpix",), gt=0
    )
    lowpass: float | None = parameter(
        None, help="final low-pass (default: the map's resolution)", unit="A", aliases=("low_pass",), gt=0
    )
    skip_fsc_weighting: bool = parameter(False, help="do not weight by the FSC", advanced=True)
    randomise_below: float = parameter(
        0.8,
        help="randomise phases from where the unmasked FSC falls below this",
        aliases=("randomize_at_fsc",),
        advanced=True,
        gt=0,
        lt=1,
    )
    filter_edge: float = parameter(
        2.0, help="width of the low-pass edge", unit="shells", aliases=("filter_edge_width",), advanced=True, ge=0
    )


class Postprocess(Job):
    """FSC corrected for the mask by phase randomisation; MTF, FSC weight, B factor, low-pass."""

    name = "postprocess"
    folder = "PostProcess"
    relion_type = "relion.postprocess"
    help = "sharpen a map and measure its resolution from two half-maps"
    Parameters = PostprocessParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write postprocess.mrc, postprocess_masked.mrc, postprocess.star and postprocess_fsc.xml."""
        path = context.project / params.input
        first, second = read_half_maps(path)
        voxel_size = params.pixel_size or first.voxel_size
        mask = read_matching_mask(context.project / params.mask, first).density if params.mask else None
        curves = half_map_fsc(
            first.density,
            second.density,
            voxel_size,
            mask,
            randomise_below=params.randomise_below,
            generator=context.generator(),
        )
        result = sharpen(first.density, second.density, curves, _sharpening(params, context, voxel_size))
        nodes = _write_maps(result, mask, voxel_size, context)
        paths = (path, other_half(path)) if "half1" in path.name else (other_half(path), path)
        general = _general(params, curves, result.guinier, mask, (str(paths[0]), str(paths[1])))
        _write_tables(context, general, curves, result.guinier)
        nodes[context.relative(context.directory / "postprocess.star")] = "ProcessData.star.relion.postprocess"
        return Outputs(nodes=nodes, metrics=_metrics(curves, result, mask), summary=_summary(curves, result))


def _sharpening(params: PostprocessParameters, context: Context, voxel_size: float) -> Sharpening:
    mtf = None
    if params.mtf:
        path = context.project / params.mtf
        table = read_table(path)
        if "mtf_frequency" not in table or "mtf_value" not in table:
            raise InputError(path, "this is not an MTF file", "It needs rlnResolutionInversePixel and rlnMtfValue")
        mtf = Mtf(
            torch.from_numpy(table["mtf_frequency"]),
            torch.from_numpy(table["mtf_value"]),
            params.mtf_pixel_size or voxel_size,
        )
    return Sharpening(
        b_factor=params.b_factor,
        fit_lowres=params.fit_lowres,
        fit_highres=params.fit_highres,
        fsc_weighting=not params.skip_fsc_weighting,
        lowpass=params.lowpass,
        filter_edge=params.filter_edge,
        mtf=mtf,
    )


def _write_maps(result: SharpenedMap, mask: Tensor | None, voxel_size: float, context: Context) -> dict[str, str]:
    names = {"postprocess.mrc": result.density}
    if mask is not None:
        names["postprocess_masked.mrc"] = result.density * mask
    for name, density in names.items():
        write_map(context.directory / name, Volume(density, voxel_size))
    return {context.relative(context.directory / name): "DensityMap.mrc.relion.postprocess" for name in names}


def _general(
    params: PostprocessParameters,
    curves: HalfMapFsc,
    guinier: Guinier,
    mask: Tensor | None,
    paths: tuple[str, str],
) -> dict[str, float | int | str]:
    values: dict[str, float | int | str] = {
        "final_resolution": curves.resolution(),
        "b_factor_used": guinier.b_factor,
        "half_map_1": paths[0],
        "half_map_2": paths[1],
    }
    if mask is not None:
        values["mask_fraction"] = 100.0 * float(mask.mean())
        values["mask_name"] = params.mask or ""
        values["randomise_from"] = curves.box * curves.voxel_size / curves.randomised_from
    if guinier.fitted:
        values["guinier_slope"] = guinier.slope
        values["guinier_intercept"] = guinier.intercept
        values["guinier_correlation"] = guinier.correlation
    return values


def _write_tables(
    context: Context, general: dict[str, float | int | str], curves: HalfMapFsc, guinier: Guinier
) -> None:
    shells = torch.arange(curves.corrected.numel(), dtype=torch.float64)
    extent = curves.box * curves.voxel_size
    fsc = Table(
        {
            "shell": shells.to(torch.int64).numpy(),
            "frequency": (shells / extent).numpy(),
            # RELION writes 999 A for the shell of no frequency
            "resolution": torch.where(shells > 0, extent / shells.clamp(min=1.0), torch.tensor(999.0)).numpy(),
            "fsc_corrected": curves.corrected.numpy(),
            "fsc_unmasked": curves.unmasked.numpy(),
            "fsc_masked": curves.masked.numpy(),
            "fsc_randomised": curves.randomised.numpy(),
        }
    )
    guinier_table = Table(
        {
            "squared_frequency": guinier.squared_frequency.numpy(),
            "log_amplitude": _finite(guinier.original),
            "log_amplitude_weighted": _finite(guinier.weighted),
            "log_amplitude_sharpened": _finite(guinier.sharpened),
            "log_amplitude_intercept": torch.full_like(guinier.original, guinier.intercept).numpy(),
        }
    )
    blocks = {"general": general, "fsc": fsc, "guinier": guinier_table}
    write_tables(context.directory / "postprocess.star", blocks)
    write_fsc_xml(
        context.directory / "postprocess_fsc.xml", (shells / extent).numpy(), curves.corrected.numpy(), "corrected FSC"
    )


def _finite(values: Tensor) -> Any:
    """RELION writes -99 where the logarithm of nothing would stand."""
    return torch.where(torch.isfinite(values), values, torch.full_like(values, -99.0)).numpy()


def _metrics(curves: HalfMapFsc, result: SharpenedMap, mask: Tensor | None) -> dict[str, float | int | str]:
    metrics: dict[str, float | int | str] = {
        "fsc143_resolution_A": curves.resolution(),
        "fsc05_resolution_A": curves.resolution(0.5),
        "b_factor_A2": result.guinier.b_factor,
        "lowpass_A": result.lowpass,
        "nyquist_A": 2.0 * curves.voxel_size,
    }
    if mask is not None:
        metrics["mask_fraction"] = float(mask.mean())
    return metrics


def _summary(curves: HalfMapFsc, result: SharpenedMap) -> str:
    resolution = curves.resolution()
    nyquist = " (Nyquist: a smaller pixel may show more)" if math.isclose(resolution, 2 * curves.voxel_size) else ""
    text = f"{resolution:.2f} A at FSC 0.143{nyquist}, B factor {result.guinier.b_factor:.0f} A^2"
    return "; ".join([text, *result.remarks])
