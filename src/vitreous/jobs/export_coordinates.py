"""Write picks for other programs: cryoSPARC's .cs, EMAN's .box, or STAR files as RELION's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.coordinates import write_box
from vitreous.io.cryosparc_picks import PickedMicrograph, write_cryosparc_picks
from vitreous.io.mrc import read_header
from vitreous.job import Context, Job, JobParameters, Outputs, Quarantined, parameter
from vitreous.jobs._coordinate_files import COORDINATES_NODE, write_coordinates
from vitreous.jobs._micrographs import read_micrographs
from vitreous.jobs._picks import at_least, match_names, read_picks


class ExportCoordinatesParameters(JobParameters):
    """What `export-coordinates` takes."""

    coordinates: str = parameter(
        help="autopick.star, particles.star or cryoSPARC's .cs", aliases=("i", "coord_list", "coords")
    )
    micrographs: str = parameter(help="STAR file of the micrographs")
    format: Literal["cs", "box", "star"] = parameter(help="cs (cryoSPARC), box (EMAN) or star (RELION)")
    box: int = parameter(0, help="with box: side of the boxes", unit="px", ge=0)
    flip_y: bool = parameter(
        False, help="with cs: turn picks upside down (the micrographs here are from TIFF or EER movies)"
    )
    min_score: float | None = parameter(None, help="leave out picks with a lower score", aliases=("minimum_pick_fom",))


class ExportCoordinates(Job):
    """Picks in the form that another program reads, at the same pixels."""

    name = "export-coordinates"
    folder = "ExportCoordinates"
    relion_type = "vitreous.exportcoordinates"
    help = "write picks for cryoSPARC (.cs), EMAN (.box) or RELION (.star)"
    Parameters = ExportCoordinatesParameters

    def run(self, params: Any, context: Context) -> Outputs:
        """Write picks.cs, or NAME.box, or NAME_pick.star and coordinates.star that lists them."""
        if params.format == "box" and not params.box:
            raise InputError("export-coordinates", "needs the side of the boxes", "Give --box.")
        path = context.project / params.micrographs
        dataset = read_micrographs(path, "Give the STAR file of micrographs.")
        known = dataset.rows["micrograph_name"].astype(str).tolist()
        picks = match_names(read_picks(context.project / params.coordinates, context.project), known)
        strangers = [Quarantined(name, "is not in the list of micrographs") for name in picks if name not in known]
        chosen = {name: at_least(picks[name], params.min_score) for name in known if name in picks}
        total = sum(table.n_rows for table in chosen.values())
        if not total:
            raise InputError(context.project / params.coordinates, "leaves no picks", "Check it and --min-score.")
        nodes = _write(params, dataset, chosen, context)
        return Outputs(
            nodes,
            {"n_picks": total, "n_micrographs": len(chosen), "n_left_out": len(strangers)},
            strangers,
            f"{total} picks on {len(chosen)} micrographs as .{params.format}",
        )


def _write(params: Any, dataset: Dataset, picks: dict[str, Table], context: Context) -> dict[str, str]:
    """The files, and those of them that the pipeline should know."""
    if params.format == "star":
        return {context.relative(write_coordinates(picks, "_pick", context)): COORDINATES_NODE}
    if params.format == "box":
        for name, table in picks.items():
            places = np.stack([table["coordinate_x"], table["coordinate_y"]], axis=1).astype(np.float64)
            write_box(Path(f"{context.place_of(name)}.box"), places, params.box)
        return {}
    sizes = {}
    if "micrograph_pixel_size" in dataset.optics:
        spread = dataset.optics_of_rows("micrograph_pixel_size").tolist()
        sizes = dict(zip(dataset.rows["micrograph_name"].astype(str), spread, strict=True))
    micrographs = []
    for name, table in picks.items():
        header = read_header(context.project / name)
        shape = (header.shape[1], header.shape[2])
        micrographs.append(PickedMicrograph(name, shape, float(sizes.get(name, header.pixel_size)), table))
    target = context.directory / "picks.cs"
    write_cryosparc_picks(target, micrographs, flip_y=params.flip_y)
    return {context.relative(target): "MicrographCoordsGroup.cs.cryosparc"}
