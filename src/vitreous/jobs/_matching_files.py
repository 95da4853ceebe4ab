"""The files of one micrograph's search: its eight maps, and the record that it has ended.

A run that is continued reads the maps of what is recorded instead of searching again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.leopard import MAP_NAMES
from vitreous.io.mrc import read_image, write_image
from vitreous.jobs._matching_task import Machine, Task
from vitreous.methods.matching.search import SearchMaps
from vitreous.runtime.atomic import write_text


def map_files(stem: Path) -> dict[str, Path]:
    """Names of the eight maps beside stem: STEM_mip.mrc, STEM_orientation_psi.mrc, ..."""
    return {name: stem.with_name(f"{stem.name}_{theirs}.mrc") for name, theirs in MAP_NAMES.items()}


def write_maps(files: dict[str, Path], maps: SearchMaps, pixel_size: float) -> None:
    """Write the eight maps; correlation_variance is a variance."""
    for name, path in files.items():
        write_image(path, getattr(maps, name).numpy(), pixel_size)
    if maps.scale is not None and (mip := files.get("mip")) is not None:
        write_image(_sizes_file(mip), (pixel_size / maps.scale).numpy(), pixel_size)


def search_mark(task: Task, template: Volume, machine: Machine) -> str:
    """A digest of all that decides what a search finds; of the micrograph, its size and time of change."""
    stat, settings = task.path.stat(), task.settings
    curve = settings.filters.curve
    plain = replace(settings, angles=None, filters=replace(settings.filters, curve=None))
    words = (stat.st_size, stat.st_mtime_ns, task.lens, plain, machine.strategy, machine.seed, template.voxel_size)
    digest = hashlib.sha256(repr(words).encode())
    arrays = [template.density.numpy()]
    arrays += [] if settings.angles is None else [settings.angles.numpy()]
    arrays += [] if curve is None else [curve.frequencies, curve.values]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_record(task: Task, mark: str, n_correlations: int, rate: float) -> None:
    """Write down that the maps of a search are all there."""
    record = {"mark": mark, "n_correlations": n_correlations, "correlations_per_s": rate}
    write_text(task.record, json.dumps(record, indent=1) + "\n")


def is_recorded(task: Task, template: Volume, machine: Machine) -> bool:
    """Whether an earlier run has ended this very search, and its maps are still there."""
    if not task.record.exists() or not set(MAP_NAMES) <= set(task.files):
        return False
    try:
        record = json.loads(task.record.read_text())
        return bool(record["mark"] == search_mark(task, template, machine)) and all(
            path.exists() for path in task.files.values()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_recorded(task: Task) -> tuple[SearchMaps, float]:
    """Maps of a search that has ended, to the bit, and its correlations a second. Raises InputError."""
    try:
        record = json.loads(task.record.read_text())
        number, rate = int(record["n_correlations"]), float(record["correlations_per_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(task.record, f"cannot be read ({error})", "Remove it: the search is done again.") from error
    maps = {name: torch.from_numpy(np.array(read_image(task.files[name])[0])) for name in MAP_NAMES}
    scale = _scales_of(task) if len(task.settings.scales) > 1 else None
    return SearchMaps(**maps, n_correlations=number, scale=scale), rate


def _scales_of(task: Task) -> torch.Tensor:
    """The map of pixel sizes as scales: the nearest of those that were searched."""
    sizes = torch.from_numpy(np.array(read_image(_sizes_file(task.files["mip"]))[0]))
    scales = torch.tensor(task.settings.scales, dtype=torch.float32)
    return scales[(task.lens.pixel_size / sizes[..., None] - scales).abs().argmin(-1)]


def _sizes_file(mip: Path) -> Path:
    return mip.with_name(mip.name.replace("_mip", "_pixel_size"))
