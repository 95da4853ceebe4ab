"""Downloads against servers of our own, on this machine: no internet is needed."""

from __future__ import annotations

import hashlib
import io
import re
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from vitreous.app.commands.fetch import command
from vitreous.core.errors import InputError
from vitreous.io.fetch import Remote, fetch, recorded, unpack
from vitreous.io.public_data import find_remotes

CONTENT = bytes(range(256)) * 20_000  # 5 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server holds and how it misbehaves."""

    content: bytes = CONTENT
    etag: str = '"v1"'
    ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)  # bytes of an answer, one entry a request
    status: int = 200
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.requests.append(wanted)
            if site.status != 200:
                self.send_error(site.status)
                return
            start = 0
            if wanted and site.ranges and self.headers.get("If-Range") == site.etag:
                start = int(re.match(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                if start >= len(site.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(site.content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            else:
                self.send_response(200)
            self.send_header("ETag", site.etag)
            self.send_header("Content-Length", str(len(site.content) - start))
            self.end_headers()
            body = site.content[start:]
            if site.breaks_after:
                body = body[: site.breaks_after.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(site)) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}/movie.tiff"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join()


def test_a_file_comes_whole_with_its_checksum(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched = fetch(Remote(site.url, "movie.tiff", DIGEST), tmp_path, lambda done, total: seen.append((done, total)))
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.resumed_from) == (DIGEST, 0)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert recorded(tmp_path) == {"movie.tiff": DIGEST}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "movie.tiff"]
    again = fetch(Remote(site.url, "movie.tiff"), tmp_path)
    assert again.resumed_from == len(CONTENT)
    assert len(site.requests) == 1


def test_a_broken_connection_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.breaks_after = [1_000_000, 2_000_000]
    fetched = fetch(Remote(site.url, "movie.tiff", DIGEST), tmp_path, pause=0.0)
    assert fetched.path.read_bytes() == CONTENT
    assert site.requests == [None, "bytes=1000000-", "bytes=3000000-"]


def test_a_later_run_goes_on_where_the_earlier_one_died(site: Site, tmp_path: Path) -> None:
    site.breaks_after = [700_000] + [0] * 4
    with pytest.raises(InputError, match="700000 bytes are kept"):
        fetch(Remote(site.url, "movie.tiff"), tmp_path, pause=0.0)
    assert not (tmp_path / "movie.tiff").exists()
    fetched = fetch(Remote(site.url, "movie.tiff"), tmp_path, pause=0.0)
    assert (fetched.resumed_from, fetched.sha256) == (700_000, DIGEST)
    assert site.requests[-1] == "bytes=700000-"


def test_a_file_that_changed_meanwhile_starts_anew(site: Site, tmp_path: Path) -> None:
    site.breaks_after = [700_000] + [0] * 4
    with pytest.raises(InputError):
        fetch(Remote(site.url, "movie.tiff"), tmp_path, pause=0.0)
    site.content, site.etag = CONTENT[::-1], '"v2"'
    assert fetch(Remote(site.url, "movie.tiff"), tmp_path).path.read_bytes() == CONTENT[::-1]


def test_a_server_that_cannot_resume(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.breaks_after = [700_000]
    assert fetch(Remote(site.url, "movie.tiff"), tmp_path, pause=0.0).sha256 == DIGEST


def test_a_part_that_is_already_whole(site: Site, tmp_path: Path) -> None:
    (tmp_path / "movie.tiff.part").write_bytes(CONTENT)
    (tmp_path / "movie.tiff.part.json").write_text(f'{{"url": "{site.url}", "version": "\\"v1\\""}}')
    assert fetch(Remote(site.url, "movie.tiff"), tmp_path).sha256 == DIGEST
    assert site.requests == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_something_else_is_not_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / "movie.tiff.part").write_bytes(b"other")
    assert fetch(Remote(site.url, "movie.tiff"), tmp_path).sha256 == DIGEST
    assert site.requests == [None]


def test_wrong_checksums(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was expected"):
        fetch(Remote(site.url, "movie.tiff", "0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []
    fetch(Remote(site.url, "movie.tiff"), tmp_path)
    (tmp_path / "movie.tiff").write_bytes(b"spoilt")
    with pytest.raises(InputError, match="has changed since it was downloaded"):
        fetch(Remote(site.url, "movie.tiff"), tmp_path)


@pytest.mark.parametrize("status", [403, 404])
def test_a_file_that_is_not_there_is_not_asked_for_twice(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(InputError, match=f"is not there \\(HTTP {status}\\)"):
        fetch(Remote(site.url, "movie.tiff"), tmp_path, pause=0.0)
    assert len(site.requests) == 1


def test_servers_that_are_ill_or_away(site: Site, tmp_path: Path) -> None:
    site.status = 503
    with pytest.raises(InputError, match="HTTP 503"):
        fetch(Remote(site.url, "movie.tiff"), tmp_path, pause=0.0)
    assert len(site.requests) == 5
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch(Remote("http://127.0.0.1:9/x", "x"), tmp_path, pause=0.0, timeout=2.0)
    with pytest.raises(InputError, match="protocol"):
        fetch(Remote("gopher://x/y", "x"), tmp_path)


class FtpHandler(socketserver.StreamRequestHandler):
    """As much of an FTP server (RFC 959) as a download needs."""

    breaks: list[int] = []
    rests: list[int] = []

    def handle(self) -> None:
        self.say("220 ready")
        rest = 0
        for line in self.rfile:
            verb, _, argument = line.decode().strip().partition(" ")
            if verb in ("EPSV", "PASV"):
                data = socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)
                port = data.server_address[1]
                self.say(f"229 ok (|||{port}|)" if verb == "EPSV" else f"227 ok (127,0,0,1,{port >> 8},{port & 255})")
            elif verb == "REST":
                rest = int(argument)
                self.say("350 ok")
            elif verb == "RETR" and argument.endswith("none"):
                self.say("550 no such file")
            elif verb == "RETR":
                self.rests.append(rest)
                self.say("150 here it comes")
                connection, _ = data.socket.accept()
                body = CONTENT[rest:]
                connection.sendall(body[: self.breaks.pop(0)] if self.breaks else body)
                connection.close()
                data.server_close()
                self.say("226 done")
                rest = 0
            elif verb == "SIZE":
                self.say("550 no such file" if argument.endswith("none") else f"213 {len(CONTENT)}")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say({"USER": "331 ok", "PASS": "230 ok", "MDTM": "213 20200101000000"}.get(verb, "200 ok"))

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


def test_ftp_resumes_too(tmp_path: Path) -> None:
    FtpHandler.breaks, FtpHandler.rests = [1_500_000], []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), FtpHandler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"ftp://127.0.0.1:{server.server_address[1]}/pub"
        fetched = fetch(Remote(f"{url}/a.tar", "a.tar"), tmp_path, pause=0.0, timeout=10.0)
        with pytest.raises(InputError, match="is not there"):
            fetch(Remote(f"{url}/none", "none"), tmp_path, pause=0.0, timeout=10.0)
        server.shutdown()
        thread.join()
    assert fetched.sha256 == DIGEST
    assert FtpHandler.rests == [0, 1_500_000]


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_archives_unpack_within_their_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive({"Movies/a.tiff": b"x", "Movies/gain.mrc": b"y"}))
    assert unpack(tmp_path / "a.tar", tmp_path) == ["Movies/a.tiff", "Movies/gain.mrc"]
    assert (tmp_path / "Movies/a.tiff").read_bytes() == b"x"
    (tmp_path / "b.tar").write_bytes(archive({"../outside": b"x"}))
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "b.tar", tmp_path / "in")
    (tmp_path / "c.tar").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "c.tar", tmp_path)


def test_names_of_public_data() -> None:
    assert find_remotes("6Z6U")[0].url == "https://files.rcsb.org/download/6z6u.cif.gz"
    assert find_remotes("pdb-6z6u")[0].name == "6z6u.cif.gz"
    assert find_remotes("EMD-20026")[0].url.endswith("structures/EMD-20026/map/emd_20026.map.gz")
    assert find_remotes("http://x.org/a/b.mrc?k=1")[0].name == "b.mrc"
    assert find_remotes("EMPIAR-10204")[0].unpack
    with pytest.raises(InputError, match="no data set that is known"):
        find_remotes("empiar-99999")


def test_the_command(site: Site, tmp_path: Path) -> None:
    site.content = archive({"relion30_tutorial/Movies/a.tiff": b"x"})
    mirror = site.url.rpartition("/")[0]
    runner = CliRunner()
    options = ["empiar-10204", "--into", str(tmp_path), "--mirror", mirror]
    first = runner.invoke(command, options, catch_exceptions=False)
    assert "1 files unpacked" in first.output
    assert (tmp_path / "relion30_tutorial/Movies/a.tiff").is_file()
    second = runner.invoke(command, options, catch_exceptions=False)
    assert "was there" in second.output
    listing = runner.invoke(command, ["--list"], catch_exceptions=False)
    assert "empiar-10204" in listing.output
    with pytest.raises(InputError, match="64 hex digits"):
        runner.invoke(command, [*options, "--sha256", "12"], catch_exceptions=False)
