"""Look for a second molecule at a known place beside each one that template matching found."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.leopard import RESULT_COLUMNS, write_results
from vitreous.io.mrc import read_map
from vitreous.io.relion import write_dataset
from vitreous.job import Context, Job, Outputs, parameter
from vitreous.jobs._hits import HitParameters, HitsOfMicrograph, by_micrograph, read_hits, read_template
from vitreous.jobs._matching_tables import particles_of_results
from vitreous.methods.matching.constrained import Found, Neighbour, search_beside
from vitreous.methods.matching.significance import detection_threshold
from vitreous.runtime.progress import track

log = logging.getLogger(__name__)


class ConstrainedSearchParameters(HitParameters):
    """What `constrained-search` takes."""

    second: str = parameter(help="volume of the second molecule, in the orientation it has beside the first")
    offset: list[float] = parameter(
        help="x,y,z of the second box's centre from the first's, in the first's frame", unit="A"
    )
    reach: int = parameter(4, help="positions within so many pixels of the expected one", unit="px", ge=0)
    angle_reach: float = parameter(6.0, help="orientations within this of the first's", unit="deg", ge=0)
    angle_step: float = parameter(2.0, help="step of the orientations", unit="deg", gt=0)
    defocus_range: float = parameter(100.0, help="defocus so far beyond what the offset allows", unit="A", ge=0)
    defocus_step: float = parameter(50.0, help="step of the defocus", unit="A", gt=0)
    false_positives: float = parameter(0.005, help="false positives to accept in each small search", gt=0, lt=1)


class ConstrainedSearch(Job):
    """A search so small that a molecule too weak for a whole micrograph is significant in it."""

    name = "constrained-search"
    folder = "ConstrainedSearch"
    relion_type = "vitreous.constrainedsearch"
    help = "find a second molecule beside matched ones (2DTM)"
    Parameters = ConstrainedSearchParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write results.csv (seconds above the threshold, Leopard-EM's columns) and particles.star."""
        if len(params.offset) != 3:
            raise InputError("--offset", f"has {len(params.offset)} numbers", "Give x,y,z in A.")
        table = read_hits(params, context)
        first, _ = read_template(params, table, context)
        second_path = context.project / params.second
        second = read_map(second_path)
        if second.box % 2:
            raise InputError(second_path, f"has an odd box of {second.box}", "Pad it by one voxel.")
        neighbour = Neighbour(
            (params.offset[0], params.offset[1], params.offset[2]), params.reach, params.angle_reach,
            params.angle_step, params.defocus_range, params.defocus_step,
        )  # fmt: skip
        parts, left = [], 0
        for group in by_micrograph(table, second, params, context, box=first.box):
            places = track(group.places, f"searching {group.path.name}")
            found = [search_beside(group.field, place, neighbour, first.box) for place in places]
            left += sum(one is None for one in found)
            parts.append(_rows(group, found, second.box, params.false_positives, str(second_path)))
        if left:
            log.warning("%d molecules have no room for the second on their micrograph", left)
        results = Table.concatenate(parts)
        write_results(context.directory / "results.csv", dict(results), extra=("first_index", "threshold"))
        particles = context.directory / "particles.star"
        if results.n_rows:
            write_dataset(particles, particles_of_results(results))
        nodes = {context.relative(particles): "ParticleGroupMetadata.star.relion"} if results.n_rows else {}
        return Outputs(
            nodes=nodes,
            metrics={"n_first": table.n_rows, "n_second": results.n_rows, "n_without_room": left},
            summary=f"{results.n_rows} of {table.n_rows} molecules have the second beside them",
        )


def _rows(group: HitsOfMicrograph, found: list[Found | None], box: int, accepted: float, template: str) -> Table:
    """Rows of the first molecules with the second's values in place of theirs, where it was found."""
    cuts = [detection_threshold(1, one.n_trials, accepted) if one else np.inf for one in found]
    kept = [i for i, one in enumerate(found) if one and one.z > cuts[i]]
    these = [one for i in kept if (one := found[i]) is not None]
    rows, n = group.rows.take(np.array(kept, dtype=np.int64)), len(kept)
    y, x = (np.array([one.place.position[i] for one in these], dtype=np.int64) for i in range(2))
    pixel_size = group.field.lens.pixel_size
    values: dict[str, Any] = {
        "first_index": rows["particle_index"],
        "particle_index": np.arange(n),
        "mip": np.array([one.place.correlation for one in these]),
        "scaled_mip": np.array([one.z for one in these]),
        "correlation_mean": np.array([one.mean for one in these]),
        "correlation_variance": np.array([one.variance for one in these]),
        "total_correlations": np.array([one.n_trials for one in these], dtype=np.int64),
        "pos_x": x,
        "pos_y": y,
        "pos_x_img": x + box // 2,
        "pos_y_img": y + box // 2,
        "pos_x_img_angstrom": (x + box // 2) * pixel_size,
        "pos_y_img_angstrom": (y + box // 2) * pixel_size,
        **{name: np.array([float(one.place.angles[i]) for one in these]) for i, name in enumerate(_ANGLE_NAMES)},
        "relative_defocus": np.array([one.place.defocus for one in these]),
        "template_path": np.full(n, template, dtype=object),
        "threshold": np.array([cuts[i] for i in kept]),
    }
    keep = {name: rows[name] for name in RESULT_COLUMNS if name not in values}
    return Table({**keep, **values})


_ANGLE_NAMES = ("phi", "theta", "psi")
