"""Cut particles out of micrographs, from picks or again from a particle set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.coordinates import read_coordinates
from vitreous.io.mrc import StackWriter, open_stack, read_image
from vitreous.io.relion import read_dataset, read_table, write_dataset
from vitreous.job import Context, Job, JobParameters, Outputs, Quarantined, parameter
from vitreous.methods.extraction.extract import ExtractionRecipe, default_background_radius, extract
from vitreous.methods.extraction.recentre import recentre
from vitreous.methods.extraction.windows import share_inside, touches_micrograph, window_centres
from vitreous.runtime.progress import track
from vitreous.runtime.queue import shared_out

log = logging.getLogger(__name__)
PARTICLES_NODE = "ParticleGroupMetadata.star.relion"
# What a particle takes over from its micrograph.
_FROM_MICROGRAPH = (
    "defocus_u", "defocus_v", "defocus_angle", "phase_shift", "ctf_b_factor", "ctf_scale", "ctf_figure_of_merit",
    "ctf_resolution",
)  # fmt: skip
_NO_IMAGES = ("pixel_size", "box", "image_dimensionality", "ctf_premultiplied")


class ExtractParameters(JobParameters):
    """What `extract` takes."""

    micrographs: str = parameter(help="STAR file of micrographs with their CTF", aliases=("i",))
    coordinates: str = parameter(
        "", help="autopick.star, or any STAR file that lists coordinate files (.star or EMAN's .box)"
    )
    particles: str = parameter(
        "", help="particles to extract again instead of picks (a run_data.star)", aliases=("reextract_data_star",)
    )
    box: int = parameter(help="side of the window in the micrograph", unit="px", aliases=("extract_size",), ge=16)
    rescale: int = parameter(0, help="side of the images after Fourier cropping (0: as cut)", unit="px",
        aliases=("scale",), ge=0)  # fmt: skip
    bg_diameter: float = parameter(
        -1.0, help="diameter of the circle outside which is background, micrograph pixels (negative: 75% of the box)",
        unit="px",
    )  # fmt: skip
    normalise: bool = parameter(True, help="bring the background to mean 0 and deviation 1", aliases=("norm",))
    ramp: bool = parameter(True, help="take a plane off the background first", advanced=True)
    invert: bool = parameter(True, help="make protein white", aliases=("invert_contrast",))
    white_dust: float = parameter(-1.0, help="replace pixels above so many deviations (negative: none)", advanced=True)
    black_dust: float = parameter(-1.0, help="replace pixels below so many deviations (negative: none)", advanced=True)
    recenter: bool = parameter(False, help="re-extraction: move windows to the refined origins")
    reset_offsets: bool = parameter(False, help="re-extraction: set the origins to zero", advanced=True)
    min_score: float | None = parameter(None, help="leave out picks with a lower score", aliases=("minimum_pick_fom",))
    min_inside: float = parameter(
        0.0, help="leave out windows with less than this share on the micrograph (0: only those wholly outside)",
        advanced=True, ge=0, le=1,
    )  # fmt: skip
    float16: bool = parameter(False, help="write half-precision stacks (RELION 4 and later read them)")


@dataclass(frozen=True)
class CutTask:
    """One micrograph, its row, its pixel size (A) and the particles to cut, in the order they get in the stack."""

    name: str
    row: dict[str, Any]
    optics_group: int
    pixel_size: float
    picks: Table
    stack: Path


@dataclass(frozen=True)
class Stack:
    """Particles of one micrograph as written. outside: how many picks had no window on the micrograph."""

    rows: Table
    outside: int


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
        micrographs = _read_micrographs(context.project / params.micrographs)
        picks = _picks_of_particles(params, context) if params.particles else _picks_of_files(params, context)
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


def recipe_of(params: ExtractParameters) -> ExtractionRecipe:
    """What is cut, in the method's terms. Raises InputError for what cannot be."""
    for name, value in (("box", params.box), ("rescale", params.rescale)):
        if value % 2:
            raise InputError("extract", f"{name} is {value}, an odd number", f"Take {value + 1}.")
    if params.rescale > params.box:
        raise InputError(
            "extract", f"rescale ({params.rescale}) is larger than box ({params.box})", "Images only shrink."
        )
    if bool(params.coordinates) == bool(params.particles):
        raise InputError("extract", "needs either coordinates or particles", "Give one of them.")
    radius = params.bg_diameter / 2 if params.bg_diameter > 0 else default_background_radius(params.box)
    if radius >= params.box / 2:
        what = f"bg_diameter ({params.bg_diameter:g} px) leaves no background in a box of {params.box} px"
        raise InputError("extract", what, "Take a smaller circle or a larger box.")
    return ExtractionRecipe(
        box=params.box,
        background_radius=radius,
        rescale=params.rescale if params.rescale != params.box else 0,
        invert=params.invert,
        normalise=params.normalise,
        ramp=params.ramp,
        white_dust=params.white_dust,
        black_dust=params.black_dust,
    )


def _read_micrographs(path: Path) -> Dataset:
    dataset = read_dataset(path)
    if dataset.kind != "micrographs" or "micrograph_name" not in dataset.rows:
        raise InputError(path, f"lists {dataset.kind}, not micrographs", "Give the STAR file of the CTF job.")
    return dataset


def _picks_of_files(params: ExtractParameters, context: Context) -> dict[str, Table]:
    """Picks by micrograph name, from a list of coordinate files."""
    path = context.project / params.coordinates
    listing = read_table(path, "coordinate_files")
    if "micrograph_name" not in listing or "coordinate_file" not in listing:
        raise InputError(path, "does not list micrographs with coordinate files", "Give an autopick.star.")
    picks = {}
    for name, file in zip(listing["micrograph_name"], listing["coordinate_file"], strict=True):
        table = read_coordinates(context.project / str(file))
        if params.min_score is not None and "pick_score" in table:
            table = table.take(table["pick_score"] >= params.min_score)
        picks[str(name)] = table
    return picks


def _picks_of_particles(params: ExtractParameters, context: Context) -> dict[str, Table]:
    """Rows of a particle set by micrograph name, moved to their refined positions if asked for."""
    path = context.project / params.particles
    particles = read_dataset(path)
    rows = particles.rows
    missing = [n for n in ("coordinate_x", "coordinate_y", "micrograph_name") if n not in rows]
    if missing:
        raise InputError(path, f"has no {', '.join(missing)}", "Only particles that know their place can be cut again.")
    if params.recenter and "origin_x" not in rows:
        raise InputError(
            path, "has no origins to re-centre on", "Give the particles of a refinement or classification."
        )
    if "image_name" in rows:
        rows = rows.with_columns(original_image_name=rows["image_name"])
    names = rows["micrograph_name"].astype(str)
    order = np.argsort(names, kind="stable")
    bounds = np.flatnonzero(np.append(names[order][1:] != names[order][:-1], True)) + 1
    return {str(names[part[0]]): rows.take(part) for part in np.split(order, bounds)[:-1]}


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


def extract_one(
    task: CutTask,
    recipe: ExtractionRecipe,
    params: ExtractParameters,
    context: Context,
    memory: int,
    read: Callable[[Path], tuple[NDArray[Any], float]] = read_image,
) -> Stack:
    """Cut and write the particles of one micrograph. Raises ValueError, and what `read` raises."""
    image, header_pixel = read(context.project / task.name)
    pixel_size = task.pixel_size or header_pixel
    if pixel_size <= 0:
        raise ValueError("its pixel size is known neither from the STAR file nor from its header")
    shape = (int(image.shape[0]), int(image.shape[1]))
    picks = _moved(task.picks, pixel_size, params)
    coordinates = np.stack([picks["coordinate_x"], picks["coordinate_y"]], axis=1).astype(np.float64)
    if not np.isfinite(coordinates).all():
        raise ValueError("some coordinates are not numbers")
    centres = window_centres(coordinates)
    kept = touches_micrograph(centres, recipe.box, shape)
    kept &= share_inside(centres, recipe.box, shape) >= params.min_inside
    rows = _particle_rows(task, picks.take(kept), context)
    if rows.n_rows and not (context.resume and _is_written(task.stack, rows.n_rows, recipe.image_box)):
        # Dust is replaced by noise: a seed of each micrograph's own, so that order and threads do not matter.
        generator = torch.Generator().manual_seed(context.seed + sum(task.name.encode()))
        micrograph = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        scale = recipe.box / recipe.image_box
        with StackWriter(task.stack, pixel_size * scale, float16=params.float16) as writer:
            for images in extract(micrograph, centres[kept], recipe, memory=memory, generator=generator):
                writer.append(images)
    return Stack(rows, int((~kept).sum()))


def _moved(picks: Table, pixel_size: float, params: ExtractParameters) -> Table:
    if not params.particles or "origin_x" not in picks or "origin_y" not in picks:
        return picks
    origins = np.stack([picks["origin_x"], picks["origin_y"]], axis=1).astype(np.float64)
    if params.recenter:
        coordinates = np.stack([picks["coordinate_x"], picks["coordinate_y"]], axis=1).astype(np.float64)
        coordinates, origins = recentre(coordinates, origins, pixel_size)
        picks = picks.with_columns(coordinate_x=coordinates[:, 0], coordinate_y=coordinates[:, 1])
        # Priors belong to the old place.
        picks = picks.without("origin_x_prior", "origin_y_prior")
    if params.reset_offsets:
        origins = np.zeros_like(origins)
    return picks.with_columns(origin_x=origins[:, 0], origin_y=origins[:, 1])


def _particle_rows(task: CutTask, picks: Table, context: Context) -> Table:
    """The picks as particles: image names, the micrograph, its optics group and its CTF."""
    count = picks.n_rows
    stack = context.relative(task.stack)
    names = np.array([f"{i:06d}@{stack}" for i in range(1, count + 1)], dtype=object)
    ctf = {name: np.full(count, task.row[name]) for name in _FROM_MICROGRAPH if name in task.row}
    if "image_name" in picks:
        # Particles that come from a refinement keep what it knows better than the micrograph.
        ctf = {name: values for name, values in ctf.items() if name not in picks}
    elif "defocus_u" in ctf:
        defaults = {"ctf_b_factor": 0.0, "ctf_scale": 1.0, "phase_shift": 0.0}
        ctf |= {name: np.full(count, value) for name, value in defaults.items() if name not in ctf}
    return picks.with_columns(
        image_name=names,
        micrograph_name=np.full(count, task.name, dtype=object),
        optics_group=np.full(count, task.optics_group, dtype=np.int64),
        **ctf,
    )


def _is_written(stack: Path, count: int, box: int) -> bool:
    """Whether an earlier run left this stack whole."""
    try:
        with open_stack(stack) as images:
            return images.shape == (count, box, box)
    except (InputError, OSError):
        return False


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
