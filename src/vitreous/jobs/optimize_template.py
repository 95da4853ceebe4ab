"""Find the pixel size and B factor of a template from molecules that template matching found."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.mrc import write_map
from vitreous.io.relion import write_tables
from vitreous.job import Context, Job, Outputs, parameter
from vitreous.jobs._hits import HitParameters, by_micrograph, read_hits, read_template
from vitreous.methods.matching.local import Field, Place
from vitreous.methods.matching.optimise import Curve, scan_b_factor, scan_scale

log = logging.getLogger(__name__)


class OptimizeTemplateParameters(HitParameters):
    """What `optimize-template` takes."""

    best: int = parameter(50, help="use so many molecules, those of the highest z-score (0: all)", ge=0)
    pixel_size_range: float = parameter(0.05, help="try voxel sizes so far to either side", unit="A", ge=0)
    pixel_size_step: float = parameter(0.005, help="step of the voxel sizes", unit="A", gt=0)
    b_factor_max: float = parameter(200.0, help="try B factors from 0 up to this (0: none)", unit="A^2", ge=0)
    b_factor_step: float = parameter(20.0, help="step of the B factors", unit="A^2", gt=0)


class OptimizeTemplate(Job):
    """Voxel size, then B factor, at which the found molecules correlate most, on average."""

    name = "optimize-template"
    folder = "OptimizeTemplate"
    relion_type = "vitreous.optimizetemplate"
    help = "find the pixel size and B factor that suit a template best (2DTM)"
    Parameters = OptimizeTemplateParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write template.mrc (the template with the voxel size found in its header) and optimisation.star."""
        table = read_hits(params, context)
        score = np.asarray(table["refined_scaled_mip" if "refined_scaled_mip" in table else "scaled_mip"], np.float64)
        table = table.take(np.sort(np.argsort(-score)[: params.best or len(score)]))
        template, path = read_template(params, table, context)
        groups = [(group.field, group.places) for group in by_micrograph(table, template, params, context)]
        pixel_size = groups[0][0].lens.pixel_size
        if any(abs(field.lens.pixel_size - pixel_size) > 1e-6 for field, _ in groups):
            raise InputError(context.project / params.hits, "mixes pixel sizes", "Optimise each set by itself.")
        scale, voxel_curve = _voxel_size(groups, params, pixel_size)
        b_factor, b_curve = _b_factor(groups, params, scale)
        target = context.directory / "template.mrc"
        write_map(target, Volume(template.density, pixel_size * scale))
        curves = {name: _table(curve) for name, curve in (("voxel_size", voxel_curve), ("b_factor", b_curve)) if curve}
        write_tables(context.directory / "optimisation.star", curves)
        return Outputs(
            nodes={context.relative(target): "DensityMap.mrc"},
            metrics={"voxel_size_A": pixel_size * scale, "b_factor_A2": b_factor, "n_hits": table.n_rows},
            summary=f"{path.name}: voxel size {pixel_size * scale:.4f} A (taken for {pixel_size:.4f}), "
            f"B factor {b_factor:.0f} A^2, from {table.n_rows} molecules",
        )


def _voxel_size(groups: list[tuple[Field, list[Place]]], params: Any, pixel_size: float) -> tuple[float, Curve | None]:
    count = int(params.pixel_size_range / params.pixel_size_step + 1e-9)
    if count == 0:
        return 1.0, None
    scales = 1.0 + np.arange(-count, count + 1) * params.pixel_size_step / pixel_size
    curve = scan_scale(groups, scales)
    log.info("voxel size: mean correlation %.3f at %.4f A", curve.means.max(), curve.best * pixel_size)
    _warn_at_end(curve, "--pixel-size-range")
    return curve.best, Curve(curve.trials * pixel_size, curve.means, curve.best * pixel_size)


def _b_factor(groups: list[tuple[Field, list[Place]]], params: Any, scale: float) -> tuple[float, Curve | None]:
    if params.b_factor_max <= 0:
        return params.b_factor, None
    curve = scan_b_factor(groups, np.arange(0.0, params.b_factor_max + 1e-9, params.b_factor_step), scale)
    if curve.best > 0:
        _warn_at_end(curve, "--b-factor-max")
    return curve.best, curve


def _warn_at_end(curve: Curve, option: str) -> None:
    if curve.best in (curve.trials[0], curve.trials[-1]):
        log.warning("the best trial is the last one that was tried: widen %s", option)


def _table(curve: Curve) -> Table:
    return Table({"trial": curve.trials, "mean_correlation": curve.means})
