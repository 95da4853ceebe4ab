"""Refine molecules that template matching found: orientation, defocus, position and pixel size of each."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from vitreous.data.table import Table
from vitreous.io.leopard import RESULT_COLUMNS, write_results
from vitreous.io.relion import write_dataset
from vitreous.job import Context, Job, Outputs, parameter
from vitreous.jobs._hits import HitParameters, HitsOfMicrograph, by_micrograph, read_hits, read_template
from vitreous.jobs._matching_tables import particles_of_results
from vitreous.methods.matching.refine import Refined, RefineSettings, refine_place
from vitreous.runtime.progress import track

log = logging.getLogger(__name__)
REFINED_COLUMNS = (
    "refined_mip", "refined_scaled_mip", "refined_pos_x", "refined_pos_y", "refined_pos_x_img", "refined_pos_y_img",
    "refined_pos_x_img_angstrom", "refined_pos_y_img_angstrom", "refined_phi", "refined_theta", "refined_psi",
    "refined_relative_defocus",
)  # fmt: skip


class RefineTemplateParameters(HitParameters):
    """What `refine-template` takes."""

    angle_step: float = parameter(1.5, help="first step of the orientations: that of the search", unit="deg", gt=0)
    angle_finest: float = parameter(0.15, help="step at which to stop", unit="deg", gt=0)
    defocus_range: float = parameter(100.0, help="search so far to either side of the hit's defocus", unit="A", ge=0)
    defocus_step: float = parameter(20.0, help="step of the defocus", unit="A", gt=0)
    pixel_size_range: float = parameter(0.0, help="search the pixel size so far to either side (0: no)", unit="A", ge=0)
    pixel_size_step: float = parameter(0.001, help="step of the pixel size", unit="A", gt=0)
    reach: int = parameter(3, help="positions within so many pixels", unit="px", advanced=True, ge=0)


class RefineTemplate(Job):
    """Climb from each hit to the orientation, defocus, position (and pixel size) that correlate most."""

    name = "refine-template"
    folder = "RefineTemplate"
    relion_type = "vitreous.refinetemplate"
    help = "refine the poses and defoci of matched molecules (2DTM)"
    Parameters = RefineTemplateParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write results.csv (Leopard-EM's columns, refined_*) and particles.star (refined poses and defoci)."""
        table = read_hits(params, context)
        template, _ = read_template(params, table, context)
        parts, gains = [], []
        for group in by_micrograph(table, template, params, context):
            settings = _settings(params, group.field.lens.pixel_size)
            refined = [
                refine_place(group.field, place, settings)
                for place in track(group.places, f"refining {group.path.name}")
            ]
            parts.append(group.rows.with_columns(**refined_columns(group, refined, template.box)))
            gains += [one.place.correlation - one.start for one in refined]
            log.info("%s: %d molecules, correlation %+.2f on average", group.path.name, len(refined), np.mean(gains))
        results = Table.concatenate(parts)
        write_results(context.directory / "results.csv", dict(results), extra=_extra(results))
        particles = context.directory / "particles.star"
        write_dataset(particles, particles_of_results(results, "refined_"))
        return Outputs(
            nodes={context.relative(particles): "ParticleGroupMetadata.star.relion"},
            metrics={"n_hits": results.n_rows, "mean_gain": float(np.mean(gains))},
            summary=f"{results.n_rows} molecules, correlation {np.mean(gains):+.2f} on average",
        )


def _settings(params: Any, pixel_size: float) -> RefineSettings:
    return RefineSettings(
        params.angle_step,
        params.angle_finest,
        params.defocus_range,
        params.defocus_step,
        params.pixel_size_range / pixel_size,
        params.pixel_size_step / pixel_size,
        params.reach,
    )


def refined_columns(group: HitsOfMicrograph, refined: list[Refined], box: int) -> dict[str, Any]:
    """Leopard-EM's refined_* columns; positions are the whole pixel, *_img the peak below it."""
    places = [one.place for one in refined]
    mip = np.array([place.correlation for place in places])
    mean, variance = (np.asarray(group.rows[f"correlation_{n}"], dtype=np.float64) for n in ("mean", "variance"))
    y, x = (np.array([place.position[i] for place in places], dtype=np.int64) for i in range(2))
    below_y, below_x = (np.array([one.shift[i] for one in refined]) for i in range(2))
    pixel_size = group.field.lens.pixel_size
    phi, theta, psi = (np.array([float(place.angles[i]) for place in places]) for i in range(3))
    values = (
        mip, (mip - mean) / np.sqrt(variance), x, y, x + box // 2 + below_x, y + box // 2 + below_y,
        (x + box // 2 + below_x) * pixel_size, (y + box // 2 + below_y) * pixel_size, phi, theta, psi,
        np.array([place.defocus for place in places]),
    )  # fmt: skip
    # A template that should be larger than its header says was recorded with smaller pixels than assumed.
    scale = np.array([place.scale for place in places])
    return {**dict(zip(REFINED_COLUMNS, values, strict=True)), "refined_pixel_size": pixel_size / scale}


def _extra(results: Table) -> list[str]:
    return [name for name in results if name not in RESULT_COLUMNS and name != ""]
