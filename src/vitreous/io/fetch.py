"""Download public data: resumable (HTTP Range, FTP REST), checksummed, atomic.

A download lies in NAME.part until it is whole; beside it NAME.part.json says which version of the file it is a part
of, so that two versions are never glued together. The SHA-256 of every file is written to SHA256SUMS (the format
of sha256sum -c) and checked when the file is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitreous.core.errors import InputError
from vitreous.io.transport import Missing, Unreachable, open_url
from vitreous.runtime.atomic import write_text

log = logging.getLogger(__name__)

_BLOCK = 1 << 20  # bytes
_ATTEMPTS = 5
_SUMS = "SHA256SUMS"
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all (None: not known)


@dataclass(frozen=True)
class Remote:
    """A file to fetch. name: where it goes in the folder; sha256: what it must be, if that is known beforehand.

    unpack: it is a tar archive to be unpacked beside itself.
    """

    url: str
    name: str
    sha256: str | None = None
    unpack: bool = False


@dataclass(frozen=True)
class Fetched:
    """What came: where it is, its checksum, bytes that were there already (all of them: nothing was downloaded)."""

    path: Path
    sha256: str
    size: int
    resumed_from: int


def fetch(
    remote: Remote, folder: str | Path, progress: Progress | None = None, pause: float = 2.0, timeout: float = 30.0
) -> Fetched:
    """Download a file, going on where an earlier attempt stopped; try again when the line breaks.

    pause: seconds before the second attempt, doubled for each further one. Raises InputError where the server or
    the file is not there, or the checksum is wrong (the download is then removed).
    """
    target = Path(folder) / remote.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        return _check_present(remote, target, Path(folder))
    part = target.with_name(target.name + ".part")
    resumed_from = part.stat().st_size if part.is_file() else 0
    for attempt in range(_ATTEMPTS):
        try:
            _download(remote.url, part, progress or (lambda done, total: None), timeout)
            break
        except Missing as error:
            raise InputError(remote.url, f"is not there ({error})", "Check the name.") from error
        except Unreachable as error:
            if attempt == _ATTEMPTS - 1:
                have = part.stat().st_size if part.is_file() else 0
                what = f"cannot be downloaded ({error}); {have} bytes are kept"
                raise InputError(remote.url, what, "Check the network and run the same command again.") from error
            log.warning("%s: %s; trying again", remote.url, error)
            time.sleep(pause * 2**attempt)
    digest = _sha256(part)
    if remote.sha256 is not None and digest != remote.sha256:
        part.unlink()
        _state(part).unlink(missing_ok=True)
        what = f"came with checksum {digest[:12]}.., {remote.sha256[:12]}.. was expected"
        raise InputError(remote.url, what, "Download it again; if it stays so, the file was changed.")
    part.replace(target)
    _state(part).unlink(missing_ok=True)
    _record(Path(folder), remote.name, digest)
    return Fetched(target, digest, target.stat().st_size, resumed_from)


def unpack(archive: str | Path, folder: str | Path) -> list[str]:
    """Unpack a tar archive; names of its files. Members that point outside the folder are refused.

    Raises InputError where it is no archive.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
            return [member.name for member in tar.getmembers() if member.isfile()]
    except (tarfile.TarError, EOFError) as error:
        raise InputError(archive, f"cannot be unpacked ({error})", "Remove it and fetch it again.") from error


def _check_present(remote: Remote, target: Path, folder: Path) -> Fetched:
    digest = _sha256(target)
    expected = remote.sha256 or recorded(folder).get(remote.name)
    if expected is not None and digest != expected:
        raise InputError(target, "has changed since it was downloaded (checksum)", "Remove it and fetch it again.")
    if expected is None:
        _record(folder, remote.name, digest)
    size = target.stat().st_size
    return Fetched(target, digest, size, size)


def _download(url: str, part: Path, progress: Progress, timeout: float) -> None:
    have = part.stat().st_size if part.is_file() else 0
    version = _read_state(part, url) if have else None
    if have and version is None:
        have = 0  # a part of we do not know what
    with open_url(url, have, version, timeout) as response:
        if response.start != have:
            log.info("%s: starts anew (the server's file has changed, or it cannot resume)", url)
        state = {"url": url, "version": response.version}
        write_text(_state(part), json.dumps(state))
        done = response.start
        with part.open("r+b" if part.is_file() else "wb") as file:
            file.truncate(done)
            file.seek(done)
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                progress(done, response.total)
    if response.total is not None and done < response.total:
        raise Unreachable(f"the connection broke at {done} of {response.total} bytes")


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_state(part: Path, url: str) -> str | None:
    try:
        state = json.loads(_state(part).read_text())
    except (OSError, ValueError):
        return None
    version = state.get("version") if isinstance(state, dict) and state.get("url") == url else None
    return version if isinstance(version, str) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded(folder: str | Path) -> dict[str, str]:
    """Checksums of the folder's SHA256SUMS by file name."""
    path = Path(folder) / _SUMS
    if not path.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip())
    return {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}


def _record(folder: Path, name: str, digest: str) -> None:
    sums = recorded(folder) | {name: digest}
    write_text(folder / _SUMS, "".join(f"{value}  {key}\n" for key, value in sorted(sums.items())))
