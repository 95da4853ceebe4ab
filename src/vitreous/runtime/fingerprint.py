"""What a copy of particle images was made of, and in what it differs from what is wanted now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fingerprint:
    """made_of: the STAR file; particles: digest of the images' names in order and of how they are read.

    n, box: how many images of what side. files: size in bytes and time of change (ns) of each stack, by its path.
    """

    made_of: str
    particles: str
    n: int
    box: int
    files: dict[str, tuple[int, int]]

    @property
    def key(self) -> str:
        """Names the copy: the same particles, read the same way, have one place."""
        return f"{self.particles[:16]}_{self.n}x{self.box}"

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        files = {path: list(numbers) for path, numbers in self.files.items()}
        return {
            "made_of": self.made_of, "particles": self.particles, "n": self.n, "box": self.box, "files": files,
        }  # fmt: skip

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Fingerprint:
        """Back from JSON. Raises KeyError, TypeError or ValueError for anything else."""
        files = {str(path): (int(size), int(time)) for path, (size, time) in record["files"].items()}
        return Fingerprint(
            str(record["made_of"]), str(record["particles"]), int(record["n"]), int(record["box"]), files
        )


def take_fingerprint(made_of: Path, names: Iterable[str], stacks: Iterable[Path], how: str, box: int) -> Fingerprint:
    """The fingerprint of images as they lie on disk now. how: whatever else decides what is read."""
    digest = hashlib.sha256(how.encode())
    n = 0
    for name in names:
        digest.update(name.encode() + b"\n")
        n += 1
    files = {}
    for path in stacks:
        stat = path.stat()
        files[str(path)] = (stat.st_size, stat.st_mtime_ns)
    return Fingerprint(str(made_of), digest.hexdigest(), n, box, files)


def difference(old: Fingerprint, new: Fingerprint) -> str:
    """Why a copy made of `old` does not stand for `new`, in words; empty where it does."""
    if old.particles != new.particles or (old.n, old.box) != (new.n, new.box):
        if (old.n, old.box) != (new.n, new.box):
            return f"it holds {old.n} images of {old.box} pixels, {new.n} of {new.box} are wanted"
        return f"it holds {old.n} images that are others, or in another order, or read in another way"
    for path, (size, time) in new.files.items():
        was = old.files.get(path)
        if was is None:
            return f"{path} is not among the files it was made of"
        if was[0] != size:
            return f"{path} had {was[0]} bytes when it was copied, now it has {size}"
        if was[1] != time:
            return f"{path} was changed on {_date(time)}; the copy is of its state of {_date(was[1])}"
    return ""


def _date(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9).astimezone().isoformat(sep=" ", timespec="milliseconds")
