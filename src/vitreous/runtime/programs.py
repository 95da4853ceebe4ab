"""Programs of others, run side by side."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vitreous.core.errors import InputError

log = logging.getLogger(__name__)


def command_of(given: str, variable: str, default: str) -> list[str]:
    """A command as words: what was given, else what the environment variable holds, else the default."""
    return shlex.split(given or os.environ.get(variable, "") or default)


def run_together(command: Sequence[str], arguments: Sequence[str], logs: Sequence[Path], directory: Path) -> None:
    """Run `command ARGUMENT` for each argument, all at the same time, in `directory`; wait for all of them.

    Output goes to `logs`. Raises InputError for a program that cannot be started or ends with another code than 0;
    the others are stopped then, as they are when we are.
    """
    running: list[subprocess.Popen[bytes]] = []
    try:
        for argument, path in zip(arguments, logs, strict=True):
            with path.open("wb") as out:
                running.append(_start([*command, argument], out.fileno(), directory))
        for process, argument, path in zip(running, arguments, logs, strict=True):
            code = process.wait()
            if code:
                what = f"ended with exit code {code} on {argument}: {_last_line(path)}"
                raise InputError(shlex.join(command), what, f"Its output is in {path.name}.")
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _start(words: Sequence[str], out: int, directory: Path) -> subprocess.Popen[bytes]:
    log.debug("running %s", shlex.join(words))
    try:
        return subprocess.Popen(words, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    except OSError as error:
        what = f"cannot be run ({error.strerror})"
        raise InputError(words[0], what, "Give the program's whole path, or install it.") from error


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
