"""One copy of a job's particles on a node's own disk, shared by all jobs and ranks there that want the same.

SCRATCH/vitreous_UID/KEY/ holds images.f32, description.json (what it was made of; written last, so that a copy without
it is half a copy), lock and, where the copy is to stay, keep. Whoever copies holds the lock alone, whoever reads shares
it; the system lets go of it when a process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitreous.core.errors import InputError
from vitreous.data.images import ImageSource
from vitreous.runtime.atomic import write_text
from vitreous.runtime.fingerprint import Fingerprint, difference
from vitreous.runtime.scratch_images import FULL, ScratchImages, image_bytes, write_images

log = logging.getLogger(__name__)
_POLL_S = 0.1
_BLOCK = 16384  # bytes a small file takes on disk besides its contents
_FOLLOWER_S = 5.0  # how long a rank that is not its node's first leaves the copying to that one


@dataclass(frozen=True)
class Scratch:
    """directory: a disk of this node. keep: leave the copy there at the end. reuse: refuse a stale copy.

    keep_free: bytes of the disk to leave alone. follower: another process of this node copies, if it comes to that.
    """

    directory: Path
    keep: bool = False
    reuse: bool = False
    keep_free: int = 0
    follower: bool = False


@contextmanager
def on_scratch(origin: ImageSource, wanted: Fingerprint, scratch: Scratch) -> Iterator[ImageSource]:
    """The images from a copy on scratch for the time of a block; made first where there is none.

    What does not fit is read from the origin. At the end the copy goes, unless it is to be kept or others read it.
    Raises InputError for a place that cannot be used, and with `reuse` for a copy that is stale.
    """
    home = _home(scratch.directory)
    place = home / wanted.key
    clear_leftovers(home, but=place.name)
    if scratch.reuse:
        _refuse_others(home, wanted)
    lock = _opened(place, origin, wanted, scratch)
    if lock is None:
        yield origin
        return
    images: ScratchImages | None = None
    try:
        images = ScratchImages(place / "images.f32", _copied(place), origin)
        yield images
    finally:
        if images is not None:
            images.close()
        _leave(place, lock)


def clear_leftovers(home: Path, but: str = "") -> None:
    """Remove copies that nobody reads and nobody asked to keep: their jobs were killed."""
    for place in sorted(home.iterdir()):
        if place.name == but or not place.is_dir() or (place / "keep").exists():
            continue
        lock = _lock_file(place)
        if lock is None:
            continue
        if _taken(lock, fcntl.LOCK_EX):
            log.info("scratch: removing what a killed job left in %s", place)
            shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _home(directory: Path) -> Path:
    """This user's own folder on scratch, closed to others."""
    home = directory / f"vitreous_{os.getuid()}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        owner = home.stat().st_uid
    except OSError as error:
        what = f"cannot be used ({error.strerror})"
        raise InputError(f"--scratch-dir {directory}", what, "Give a directory of this node's disk.") from error
    if owner != os.getuid():
        what = f"belongs to another user (number {owner})"
        raise InputError(home, what, "Give another --scratch-dir.")
    return home


def _opened(place: Path, origin: ImageSource, wanted: Fingerprint, scratch: Scratch) -> int | None:
    """The lock of a good copy, shared; None where there is to be none (no room, or a stale one is in use)."""
    since, said = time.monotonic(), False
    while True:
        lock = _lock_file(place)
        if lock is not None:
            waits = scratch.follower and time.monotonic() - since < _FOLLOWER_S
            try:
                state = _attempt(place, lock, origin, wanted, scratch, waits)
            except BaseException:
                os.close(lock)
                raise
            if state == "ready":
                return lock
            os.close(lock)
            if state == "origin":
                return None
            if state == "busy" and not said:
                log.info("scratch: waiting for another process to copy these particles")
                said = True
        time.sleep(_POLL_S)


def _attempt(
    place: Path, lock: int, origin: ImageSource, wanted: Fingerprint, scratch: Scratch, waits: bool
) -> Literal["ready", "origin", "busy", "again"]:
    """Take a good copy, or make one unless this process leaves that to another for now (waits)."""
    if not _taken(lock, fcntl.LOCK_SH):
        return "busy"
    if not _is_current(lock, place):
        return "again"
    fault = _fault(place, wanted)
    if fault and scratch.reuse:
        raise InputError(place, f"is stale: {fault}", "Leave --reuse-scratch out to copy anew.")
    if fault != "":
        if waits:
            return "again"
        if not _taken(lock, fcntl.LOCK_EX):
            if fault:
                log.warning("scratch: %s is stale (%s) and in use: reading from the origin", place, fault)
            return "origin" if fault else "again"
        if not _is_current(lock, place):
            return "again"
        if not _copy(place, origin, wanted, scratch, fault):
            shutil.rmtree(place, ignore_errors=True)
            return "origin"
    _mark(place, lock, scratch.keep)
    whole = _taken(lock, fcntl.LOCK_SH) and _is_current(lock, place) and _fault(place, wanted) == ""
    return "ready" if whole else "again"


def _copy(place: Path, origin: ImageSource, wanted: Fingerprint, scratch: Scratch, fault: str | None) -> bool:
    """Make the copy, under the lock; False where not one image fits."""
    if fault:
        log.info("scratch: the copy in %s is stale: %s", place, fault)
    (place / "description.json").unlink(missing_ok=True)
    (place / "images.f32").unlink(missing_ok=True)
    each = image_bytes(origin.box)
    room = shutil.disk_usage(place).free - scratch.keep_free
    count = min(len(origin), max(0, room // each))
    start = time.monotonic()
    try:
        count = write_images(origin, place / "images.f32", count) if count else 0
    except OSError as error:
        log.warning("scratch: %s: %s", place, error.strerror or error)
        count = 0
    if not count:
        log.warning("scratch: no room in %s: reading from the origin", place.parent)
        return False
    if count < len(origin):
        log.warning("scratch: %d of %d images fit, the others are read from the origin", count, len(origin))
    try:
        count = _describe(place, wanted, count)
    except OSError as error:
        log.warning("scratch: %s: %s: reading from the origin", place, error.strerror or error)
        return False
    seconds = time.monotonic() - start
    log.info("scratch: copied %d images (%.2f GB) to %s in %.1f s", count, count * each / 1e9, place, seconds)
    return True


def _describe(place: Path, wanted: Fingerprint, count: int) -> int:
    """Write the description, at the cost of some images where these have filled the disk; how many are left."""
    path = place / "description.json"
    try:
        write_text(path, json.dumps({**wanted.record(), "copied": count}))
    except OSError as error:
        if error.errno not in FULL:
            raise
        each = image_bytes(wanted.box)
        text = json.dumps({**wanted.record(), "copied": count})
        count = max(0, count - -(-(len(text) + _BLOCK) // each))
        os.truncate(place / "images.f32", count * each)
        write_text(path, json.dumps({**wanted.record(), "copied": count}))
    return count


def _refuse_others(home: Path, wanted: Fingerprint) -> None:
    """Raise InputError where scratch has a copy made of the same STAR file that is not the one wanted."""
    if (home / wanted.key / "description.json").exists():
        return
    for description in sorted(home.glob("*/description.json")):
        old = _read(description)
        if old is not None and old.made_of == wanted.made_of:
            what = f"is stale: {difference(old, wanted)}"
            raise InputError(description.parent, what, "Leave --reuse-scratch out to copy anew.")


def _fault(place: Path, wanted: Fingerprint) -> str | None:
    """Why the copy is not the one wanted: empty where it is, None where there is no whole one."""
    old = _read(place / "description.json")
    if old is None:
        return None
    reason = difference(old, wanted)
    if reason:
        return reason
    expected = _copied(place) * image_bytes(wanted.box)
    try:
        there = (place / "images.f32").stat().st_size
    except OSError:
        return None
    return "" if there == expected else f"images.f32 has {there} bytes, not {expected}"


def _read(description: Path) -> Fingerprint | None:
    try:
        return Fingerprint.from_record(json.loads(description.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _copied(place: Path) -> int:
    return int(json.loads((place / "description.json").read_text())["copied"])


def _mark(place: Path, lock: int, keep: bool) -> None:
    """Note that the copy is to stay; what an earlier job noted is forgotten by one that comes when nobody reads."""
    if keep:
        (place / "keep").touch()
    elif (place / "keep").exists() and _taken(lock, fcntl.LOCK_EX):  # where this fails the lock is lost
        (place / "keep").unlink(missing_ok=True)


def _leave(place: Path, lock: int) -> None:
    if not (place / "keep").exists() and _is_current(lock, place) and _taken(lock, fcntl.LOCK_EX):
        shutil.rmtree(place, ignore_errors=True)
    os.close(lock)


def _lock_file(place: Path) -> int | None:
    """The open lock of a copy; None where another process has just removed it."""
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        return os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None


def _taken(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_current(lock: int, place: Path) -> bool:
    """Whether the file we hold is still the one that lies there: a copy may go between opening and locking."""
    try:
        return os.fstat(lock).st_ino == (place / "lock").stat().st_ino
    except OSError:
        return False
