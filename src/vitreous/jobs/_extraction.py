"""One micrograph's particles: from picks to a stack of images and the rows that describe them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.mrc import StackWriter, open_stack, read_image
from vitreous.job import Context
from vitreous.jobs._extract_parameters import ExtractParameters
from vitreous.methods.extraction.extract import ExtractionRecipe, extract
from vitreous.methods.extraction.recentre import recentre
from vitreous.methods.extraction.windows import share_inside, touches_micrograph, window_centres

# What a particle takes over from its micrograph.
_FROM_MICROGRAPH = (
    "defocus_u", "defocus_v", "defocus_angle", "phase_shift", "ctf_b_factor", "ctf_scale", "ctf_figure_of_merit",
    "ctf_resolution",
)  # fmt: skip


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
