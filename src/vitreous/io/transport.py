"""Read a file from a server from some byte on: HTTP(S) and FTP."""

from __future__ import annotations

import ftplib
import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vitreous import __version__

_GONE = (403, 404, 410)
_RANGE_NOT_SATISFIABLE = 416


class Missing(Exception):
    """The server answers, but has no such file: trying again does not help."""


class Unreachable(Exception):
    """The server does not answer or the connection broke: trying again may help."""


@dataclass
class Response:
    """A file from byte `start` on. total: its whole size, None if not told. version: changes when the file does."""

    start: int
    total: int | None
    version: str | None
    _read: Callable[[int], bytes]

    def read(self, size: int) -> bytes:
        """Up to size bytes; empty at the end. Raises Unreachable where the connection breaks."""
        try:
            return self._read(size)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the connection broke: {error or type(error).__name__}") from error


@contextmanager
def open_url(url: str, start: int, version: str | None, timeout: float) -> Iterator[Response]:
    """Open a URL at byte `start` of its version, or at byte 0 where the server's file is another one.

    Raises Missing or Unreachable.
    """
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https", "ftp"):
        raise Missing(f"{scheme or 'no'} protocol is known; http, https or ftp is needed")
    try:
        with (
            _open_ftp(url, start, version, timeout)
            if scheme == "ftp"
            else _open_http(url, start, version, timeout) as response
        ):
            yield response
    except urllib.error.HTTPError as error:
        if error.code in _GONE:
            raise Missing(f"HTTP {error.code}") from error
        raise Unreachable(f"HTTP {error.code}") from error
    except urllib.error.URLError as error:
        raise Unreachable(str(error.reason)) from error
    except ftplib.error_perm as error:
        raise Missing(str(error)) from error
    except (OSError, EOFError, http.client.HTTPException, ftplib.Error) as error:
        raise Unreachable(str(error) or type(error).__name__) from error


@contextmanager
def _open_http(url: str, start: int, version: str | None, timeout: float) -> Iterator[Response]:
    headers = {"User-Agent": f"vitreous/{__version__}", "Accept-Encoding": "identity"}
    if start and version:
        # If-Range: the rest of this version, or all of a newer one.
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if error.code == _RANGE_NOT_SATISFIABLE and total and int(total[1]) == start:
            yield Response(start, start, version, lambda size: b"")  # nothing is left to fetch
            return
        if error.code == _RANGE_NOT_SATISFIABLE:
            with _open_http(url, 0, None, timeout) as response:
                yield response
            return
        raise
    with answer:
        # Weak validators ("W/...") may stand for different bytes: the date is better.
        tag = answer.headers.get("ETag", "")
        found = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        length = answer.headers.get("Content-Length")
        begin = 0
        if answer.status == 206:
            span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if span is None or int(span[1]) != start:
                raise Unreachable("the server sent another part than the one asked for")
            begin = start
        total_size = begin + int(length) if length is not None else None
        yield Response(begin, total_size, found, answer.read)


@contextmanager
def _open_ftp(url: str, start: int, version: str | None, timeout: float) -> Iterator[Response]:
    parts = urllib.parse.urlsplit(url)
    with ftplib.FTP(timeout=timeout) as ftp:
        ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        ftp.login()
        ftp.voidcmd("TYPE I")
        path = urllib.parse.unquote(parts.path)
        total = ftp.size(path)
        found = f"{total} {_modified(ftp, path)}"
        begin = start if start and version == found else 0
        with ftp.transfercmd(f"RETR {path}", rest=begin or None) as connection:
            yield Response(begin, total, found, connection.recv)


def _modified(ftp: ftplib.FTP, path: str) -> str:
    try:
        return ftp.voidcmd(f"MDTM {path}")
    except ftplib.error_perm:
        return ""
