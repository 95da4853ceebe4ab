"""How particle images are read: from where they lie, from memory, or from a copy on the node's own disk."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

import numpy as np
import torch

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.images import ArraySource, ImageSource
from vitreous.job import Context, JobParameters, parameter
from vitreous.runtime.fingerprint import Fingerprint, take_fingerprint
from vitreous.runtime.launch import is_first_here
from vitreous.runtime.ranks import ALONE, Ranks
from vitreous.runtime.scratch import Scratch, on_scratch

log = logging.getLogger(__name__)
_CHUNK = 64 << 20  # bytes that one rank sends at a time


class ReadingParameters(JobParameters):
    """Where images are read from, under RELION's names."""

    scratch_dir: str = parameter("", help="copy the particles to this disk of the node first", advanced=True)
    keep_scratch: bool = parameter(False, help="leave the copy on scratch at the end", advanced=True)
    reuse_scratch: bool = parameter(
        False, help="refuse, and say why, where the copy on scratch is stale (instead of copying anew)", advanced=True
    )
    keep_free_scratch: float = parameter(10.0, help="room to leave on scratch", unit="GB", ge=0, advanced=True)
    preread_images: bool = parameter(False, help="read all particles into memory first", advanced=True)
    no_parallel_disc_io: bool = parameter(
        False, help="one rank reads all particles and sends them to the others' memory", advanced=True
    )


def placed(
    images: ImageSource, dataset: Dataset, star: Path, stacks: list[Path], reading: ReadingParameters, context: Context
) -> ImageSource:
    """The images where they are to be read from; what was made for that goes when the job ends."""
    if reading.scratch_dir and (reading.preread_images or reading.no_parallel_disc_io):
        both = "--preread-images" if reading.preread_images else "--no-parallel-disc-io"
        raise InputError("--scratch-dir", f"and {both} are both given", "Leave one of them out.")
    ranks = context.ranks or ALONE
    if reading.no_parallel_disc_io or reading.preread_images:
        _check_room(images, context)
        if reading.no_parallel_disc_io:
            return _sent(images, ranks)
        return ArraySource(images[np.arange(len(images))], images.pixel_size)
    if not reading.scratch_dir:
        return images
    wanted = _fingerprint(images, dataset, star, stacks)
    scratch = Scratch(
        Path(reading.scratch_dir),
        keep=reading.keep_scratch,
        reuse=reading.reuse_scratch,
        keep_free=int(reading.keep_free_scratch * 1e9),
        follower=not is_first_here(),
    )
    start = time.monotonic()
    there = context.closing.enter_context(on_scratch(images, wanted, scratch))
    context.seconds["scratch_copy_seconds"] = round(time.monotonic() - start, 3)
    return there


def _fingerprint(images: ImageSource, dataset: Dataset, star: Path, stacks: list[Path]) -> Fingerprint:
    """What the copy is made of. Images that are brought to another grid depend on the optics as well."""
    optics = hashlib.sha256()
    for name in sorted(dataset.optics):
        optics.update(f"{name} {np.asarray(dataset.optics[name]).tolist()}\n".encode())
    how = f"{type(images).__name__} {images.box} {images.pixel_size:.9g} {optics.hexdigest()}"
    return take_fingerprint(star.resolve(), map(str, dataset.rows["image_name"]), stacks, how, images.box)


def _check_room(images: ImageSource, context: Context) -> None:
    wanted = 4 * len(images) * images.box**2
    if wanted > context.memory // 2:
        what = f"needs {wanted / 1e9:.1f} GB in each rank, of {context.memory / 1e9:.1f} GB to plan with"
        raise InputError("reading all particles into memory", what, "Use --scratch-dir, or read them from disk.")
    log.info("reading %d particles into memory (%.2f GB)", len(images), wanted / 1e9)


def _sent(images: ImageSource, ranks: Ranks) -> ImageSource:
    """All images in every rank's memory, read by the first alone."""
    here = torch.empty(len(images), images.box, images.box)
    step = max(1, _CHUNK // (4 * images.box**2))
    for start in range(0, len(images), step):
        part = here[start : start + step]
        if ranks.is_first:
            part.copy_(images[np.arange(start, start + len(part))])
        ranks.broadcast_(part)
    return ArraySource(here, images.pixel_size)
