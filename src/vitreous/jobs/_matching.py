"""What the matching jobs share: one micrograph from files to files, resumable."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_image
from vitreous.jobs._matching_files import is_recorded, read_recorded, search_mark, write_maps, write_record
from vitreous.jobs._matching_task import Machine, Matched, PeakChoice, Task
from vitreous.kernels.correlate import Statistics
from vitreous.methods.matching.hierarchical import hierarchical_search
from vitreous.methods.matching.match import (
    MatchSettings,
    Progress,
    Search,
    find_hits,
    prepare_search,
    run_search,
)
from vitreous.methods.matching.search import SearchMaps, finish
from vitreous.runtime.checkpoint import load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)


def load_micrograph(path: Path, template: Volume, pixel_size: float) -> torch.Tensor:
    """A micrograph that goes with the template. Raises InputError."""
    image, stored = read_image(path)
    if image.ndim != 2 or image.dtype.kind == "c":
        raise InputError(path, "is no single image", "Give a motion-corrected micrograph.")
    if min(image.shape) < template.box:
        what = f"of {image.shape[1]} x {image.shape[0]} pixels is smaller than the template's box of {template.box}"
        raise InputError(path, what, "Crop the template.")
    for what, size in (("template's voxel", template.voxel_size), ("micrograph header's pixel", stored)):
        if size > 0 and abs(size / pixel_size - 1.0) > 0.02:
            raise InputError(
                path, f"its pixel size {pixel_size:g} A is not the {what} size {size:g} A",
                "Rescale one of them, or correct the value.",
            )  # fmt: skip
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))


def match_file(
    task: Task,
    template: Volume,
    choice: PeakChoice,
    machine: Machine,
    *,
    resume: bool = False,
    tick: Callable[[int, int], None] | None = None,
) -> Matched:
    """Search one micrograph and write its eight maps.

    With resume, a search that has ended is not done again, and one that has begun goes on from its checkpoint.
    """
    if resume and is_recorded(task, template, machine):
        return matched_before(task, template, choice)
    ending = Ending(task, template, machine, choice)
    if machine.strategy == "hierarchical":
        start = time.monotonic()
        maps = hierarchical_maps(task, template, machine)
        return ending.of_maps(maps, maps.n_correlations / max(time.monotonic() - start, 1e-9))
    search, mark = open_search(task, template, machine)
    progress = load_progress(task.checkpoint, mark, machine.device) if resume else None
    before = progress.statistics.count if progress else 0
    if progress:
        log.info("%s: going on after %d of %d correlations", task.name, before, search.n_correlations)
    start = time.monotonic()
    saver = Saver(task.checkpoint, mark, machine.checkpoint_interval, tick)
    statistics = run_search(search, task.settings, memory=machine.memory, progress=progress, after_block=saver)
    rate = (statistics.count - before) / max(time.monotonic() - start, 1e-9)
    return ending.of_search(search, statistics, rate)


def hierarchical_maps(task: Task, template: Volume, machine: Machine) -> SearchMaps:
    """The maps of one micrograph's search in two passes. Raises InputError."""
    image = load_micrograph(task.path, template, task.lens.pixel_size)
    if machine.device.type != "cpu":
        log.warning("the hierarchical strategy works on the CPU; the GPU is not used")
    generator = torch.Generator().manual_seed(machine.seed)
    try:
        return hierarchical_search(
            image, template.density, task.lens, task.settings, memory=machine.memory, generator=generator
        )
    except ValueError as error:
        raise InputError(task.path, str(error), "Use --strategy full.") from error


def open_search(task: Task, template: Volume, machine: Machine) -> tuple[Search, str]:
    """The full search of one micrograph, ready to begin, and its mark in checkpoints. Raises InputError."""
    image = load_micrograph(task.path, template, task.lens.pixel_size)
    generator = torch.Generator().manual_seed(machine.seed)
    try:
        search = prepare_search(
            image, template.density, task.lens, task.settings, device=machine.device, generator=generator
        )
    except ValueError as error:
        raise InputError(task.path, str(error), "Look at the image and the template.") from error
    return search, _fingerprint(search, task.settings)


@dataclass(frozen=True)
class Ending:
    """How a micrograph's search ends: maps, hits, the record that it has ended; and its checkpoint goes."""

    task: Task
    template: Volume
    machine: Machine
    choice: PeakChoice

    def of_search(self, search: Search, statistics: Statistics, rate: float) -> Matched:
        """From the statistics of a full search. Raises InputError."""
        try:
            maps = finish(search.image, statistics, search.orientations.angles, search.planes, search.maker.scales)
        except ValueError as error:
            raise InputError(self.task.path, str(error), "Look at the micrograph.") from error
        return self.of_maps(maps, rate)

    def of_maps(self, maps: SearchMaps, rate: float) -> Matched:
        """From the maps. rate: correlations a second."""
        task = self.task
        task.record.unlink(missing_ok=True)  # while maps of two searches may lie side by side
        write_maps(task.files, maps, task.lens.pixel_size)
        write_record(task, search_mark(task, self.template, self.machine), maps.n_correlations, rate)
        task.checkpoint.unlink(missing_ok=True)
        return _matched(task, maps, self.template.box, self.choice, rate)


def matched_before(task: Task, template: Volume, choice: PeakChoice) -> Matched:
    """What came of a search that an earlier run has ended, its hits chosen anew. Raises InputError."""
    log.info("%s was searched before", task.name)
    maps, rate = read_recorded(task)
    task.checkpoint.unlink(missing_ok=True)
    return _matched(task, maps, template.box, choice, rate)


def _matched(task: Task, maps: SearchMaps, box: int, choice: PeakChoice, rate: float) -> Matched:
    hits = find_hits(
        maps,
        false_positives=choice.false_positives,
        threshold=choice.threshold,
        calibrated=choice.calibrated,
        p_value=choice.p_value,
        min_distance=choice.min_distance / task.lens.pixel_size,
    )
    rows, columns = maps.mip.shape
    return Matched(hits, maps.n_correlations, box, (rows + box - 1, columns + box - 1), task.files, rate)


class Ticker:
    """A log line of progress at most every half minute. before: how many were done at the start, if that is known."""

    def __init__(self, name: str, before: int | None = None) -> None:
        self._name, self._first = name, before
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """So many of all are done."""
        if self._first is None:
            self._first = done - 1
        now = time.monotonic()
        if now - self._last > 30.0:
            self._last = now
            left = (now - self._start) / (done - self._first) * (total - done)
            log.info("%s: %.1f%% done, %.0f s to go", self._name, 100.0 * done / total, left)


class Saver:
    """Saves the running statistics every so many seconds, and tells how far the search is."""

    def __init__(self, path: Path, mark: str, interval: float, tick: Callable[[int, int], None] | None) -> None:
        self._path, self._mark, self._interval, self._tick = path, mark, interval, tick
        self._last = time.monotonic()

    def __call__(self, progress: Progress, blocks: int) -> None:
        """After a block, or several, of so many."""
        if self._tick is not None:
            self._tick(progress.next_block, blocks)
        if time.monotonic() - self._last >= self._interval and progress.next_block < blocks:
            arrays = progress.statistics.arrays()
            place = {"next_block": np.array(progress.next_block), "size": np.array(progress.size)}
            save_checkpoint(self._path, {**arrays, **place, "mark": np.array(self._mark)})
            self._last = time.monotonic()


def load_progress(path: Path, mark: str, device: torch.device | None) -> Progress | None:
    """The state of an earlier run of the very same search; None where there is none."""
    arrays = load_checkpoint(path)
    if arrays is None or str(arrays.get("mark")) != mark:
        return None
    return Progress(Statistics.from_arrays(arrays, device), int(arrays["next_block"]), int(arrays["size"]))


def _fingerprint(search: Search, settings: MatchSettings) -> str:
    """A digest of image, templates and orientations: a checkpoint of another search must not be taken up."""
    digest = hashlib.sha256(repr((settings.trimmed, settings.scales)).encode())
    volume = torch.view_as_real(search.maker.volume.data)
    parts = (search.image.pixels, volume, torch.view_as_real(search.maker.transfer.to(torch.complex64)))
    for tensor in (*parts, search.orientations.angles, search.planes):
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
