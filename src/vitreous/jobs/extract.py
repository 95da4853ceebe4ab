"""Cut particles out of micrographs, from picks or again from a particle set."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.relion import write_dataset
from vitreous.job import Context, Job, Outputs, Quarantined
from vitreous.jobs._extract_parameters import ExtractParameters, recipe_of
from vitreous.jobs._extraction import CutTask, Stack, extract_one
from vitreous.jobs._micrographs import read_micrographs
from vitreous.jobs._picks import at_least, match_names, picks_by_suffix, read_picks
from vitreous.jobs._reextraction import particles_to_cut
from vitreous.methods.extraction.extract import ExtractionRecipe
from vitreous.runtime.progress import track
from vitreous.runtime.queue import shared_out

log = logging.getLogger(__name__)
PARTICLES_NODE = "ParticleGroupMetadata.star.relion"
_NO_IMAGES = ("pixel_size", "box", "image_dimensionality", "ctf_premultiplied")


class Extract(Job):
    """Windows around picks: rescaled, background-normalised, inverted; with the CTF of their micrograph."""

    name = "extract"
    folder = "Extract"
    relion_type = "relion.extract"
    help = "extract particle images from micrographs"
    Parameters = ExtractParameters
    shared = queued = True

    def run(self, params: Any, context: Context) -> Outputs:
        """Write one stack per micrograph and particles.star."""
        recipe = recipe_of(params)
        micrographs = read_micrographs(context.project / params.micrographs, "Give the STAR file of the CTF job.")
        picks = _picks(params, micrographs, context)
        tasks, failed = plan_cutting(micrographs, picks, context)
        results = list(track(_extract_all(tasks, recipe, params, context), "Extracting", len(tasks)))
        failed += [result for result in results if isinstance(result, Quarantined)]
        for item in failed:
            log.warning("%s left out: %s", item.item, item.reason)
        done = [result for result in results if isinstance(result, Stack) and result.rows.n_rows]
        if not done:
            reason = failed[0].reason if failed else "there are no coordinates on these micrographs"
            raise InputError(
                context.project / params.micrographs, f"no particle could be extracted: {reason}", "Check the picks."
            )
        optics = image_optics(micrographs.optics, recipe)
        dataset = Dataset("particles", optics, joined_rows([one.rows for one in done]))
        target = context.directory / "particles.star"
        write_dataset(target, dataset)
        return _outputs(dataset, sum(one.outside for one in done), failed, context.relative(target), len(done))


def _picks(params: ExtractParameters, micrographs: Dataset, context: Context) -> dict[str, Table]:
    """What is to be cut, by micrograph name."""
    if params.particles:
        return particles_to_cut(params, context)
    if params.coord_suffix:
        picks = picks_by_suffix(micrographs, context.project, params.coord_dir, params.coord_suffix)
    else:
        path = context.project / params.coordinates
        known = micrographs.rows["micrograph_name"].astype(str).tolist()
        picks = match_names(read_picks(path, context.project, flip_y=params.flip_y), known)
    return {name: at_least(table, params.min_score) for name, table in picks.items()}


def plan_cutting(
    micrographs: Dataset, picks: dict[str, Table], context: Context
) -> tuple[list[CutTask], list[Quarantined]]:
    """The micrographs that have picks, and names with picks that are no micrographs."""
    groups = micrographs.optics["optics_group"]
    tasks = []
    for index, raw in enumerate(micrographs.rows["micrograph_name"]):
        name = str(raw)
        if name not in picks or picks[name].n_rows == 0:
            continue
        row = micrographs.rows.row(index)
        optics = micrographs.optics.row(int(np.flatnonzero(groups == row["optics_group"])[0]))
        pixel_size = float(optics.get("micrograph_pixel_size", 0.0))
        stack = Path(f"{context.place_of(name)}.mrcs")
        tasks.append(CutTask(name, row, int(row["optics_group"]), pixel_size, picks[name], stack))
    known = set(micrographs.rows["micrograph_name"].astype(str))
    strangers = [Quarantined(name, "has coordinates but is not in the list of micrographs") for name in picks]
    return tasks, [one for one in strangers if one.item not in known]


def _extract_all(
    tasks: list[CutTask], recipe: ExtractionRecipe, params: ExtractParameters, context: Context
) -> Iterator[Stack | Quarantined]:
    """Stacks in the order of the micrographs; torch and FFTs leave Python's lock free."""
    workers = max(1, min(context.threads, len(tasks)))
    memory = context.memory // (2 * workers)
    return shared_out(
        tasks,
        lambda task: _attempt(task, recipe, params, context, memory),
        threads=workers,
        ranks=context.ranks,
    )


def _attempt(
    task: CutTask, recipe: ExtractionRecipe, params: ExtractParameters, context: Context, memory: int
) -> Stack | Quarantined:
    try:
        return extract_one(task, recipe, params, context, memory)
    except (InputError, ValueError) as error:
        return Quarantined(task.name, str(error))


def joined_rows(tables: list[Table]) -> Table:
    """All rows, with the columns that every micrograph has (picks may come from different programs)."""
    shared = set(tables[0]).intersection(*tables[1:])
    return Table.concatenate([table.without(*(set(table) - shared)) for table in tables])


def image_optics(optics: Table, recipe: ExtractionRecipe) -> Table:
    """The micrographs' optics with pixel size and box of the particle images, as RELION writes it."""
    n = optics.n_rows
    if "micrograph_pixel_size" not in optics:
        raise InputError("extract", "the micrographs' optics table has no pixel size", "Import them with one.")
    pixel_size = optics["micrograph_pixel_size"].astype(np.float64) * (recipe.box / recipe.image_box)
    return optics.without(*_NO_IMAGES).with_columns(
        pixel_size=pixel_size,
        box=np.full(n, recipe.image_box, dtype=np.int64),
        image_dimensionality=np.full(n, 2, dtype=np.int64),
        ctf_premultiplied=np.zeros(n, dtype=np.int64),
    )


def _outputs(dataset: Dataset, outside: int, failed: list[Quarantined], node: str, micrographs: int) -> Outputs:
    box, pixel_size = int(dataset.optics["box"][0]), float(dataset.optics["pixel_size"][0])
    words = f"{len(dataset)} particles of {box} px at {pixel_size:.3f} A/px from {micrographs} micrographs"
    if outside:
        words += f"; {outside} picks lay too far outside"
    if failed:
        words += f"; {len(failed)} micrographs left out"
    metrics: dict[str, float | int | str] = {
        "n_particles": len(dataset),
        "n_micrographs": micrographs,
        "box_px": box,
        "pixel_size_A": pixel_size,
        "n_outside": outside,
    }
    return Outputs({node: PARTICLES_NODE}, metrics, failed, words)
