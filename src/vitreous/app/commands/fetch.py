"""Download public data: tutorial movies, PDB and EMDB entries."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from vitreous.core.errors import InputError
from vitreous.io.fetch import Remote, fetch, unpack
from vitreous.io.public_data import SETS, find_remotes

_SHA256 = re.compile(r"[0-9a-f]{64}")


@click.command("fetch", help=__doc__)
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--into", "folder", default=".", metavar="DIR", help="where to put the files  [default: here]")
@click.option("--list", "listing", is_flag=True, help="list the sets known by name and stop")
@click.option("--mirror", default="", metavar="URL", help="take the files from this folder of another server")
@click.option("--sha256", default="", metavar="HEX", help="the checksum the (one) file must have")
@click.option("--no-unpack", is_flag=True, help="leave archives packed")
def command(names: tuple[str, ...], folder: str, listing: bool, mirror: str, sha256: str, no_unpack: bool) -> None:
    """NAME is a set (see --list), a PDB entry (6z6u), an EMDB map (emd-20026) or a URL.

    Downloads go on where they stopped; checksums are kept in SHA256SUMS and checked when a file is fetched again.
    """
    if listing or not names:
        for name, (text, _) in SETS.items():
            click.echo(f"{name}: {text}")
        click.echo("also: PDB entries (6z6u), EMDB maps (emd-20026), any URL")
        return
    remotes = [_placed(remote, mirror) for name in names for remote in find_remotes(name)]
    if sha256:
        if len(remotes) != 1 or not _SHA256.fullmatch(sha256.lower()):
            raise InputError("--sha256", "is the 64 hex digits of one file", "Fetch one file with it.")
        remotes = [replace(remotes[0], sha256=sha256.lower())]
    for remote in remotes:
        _fetch_one(remote, Path(folder), no_unpack)


def _placed(remote: Remote, mirror: str) -> Remote:
    return replace(remote, url=f"{mirror.rstrip('/')}/{remote.name}") if mirror else remote


def _fetch_one(remote: Remote, folder: Path, no_unpack: bool) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(remote.name, total=None)
        fetched = fetch(remote, folder, lambda done, total: bar.update(task, completed=done, total=total))
    if fetched.resumed_from == fetched.size:
        what = "was there"
    elif fetched.resumed_from:
        what = f"fetched from byte {fetched.resumed_from} on"
    else:
        what = "fetched"
    click.echo(f"{fetched.path}: {what}, {fetched.size} bytes, sha256 {fetched.sha256}")
    if remote.unpack and not no_unpack:
        files = unpack(fetched.path, folder)
        click.echo(f"{fetched.path}: {len(files)} files unpacked into {folder}")
