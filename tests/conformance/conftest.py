"""What RELION's wrappers of external programs need: the program as a file, and a C shell."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file that runs a module's main, as pip's entry point does."""

    def write(module: str) -> Path:
        path = tmp_path / module.rpartition(".")[2]
        code = f"from {module} import main; main()"
        path.write_text(f"#!/bin/sh\nPYTHONPATH={SOURCES} exec {sys.executable} -c '{code}' \"$@\"\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """The environment with a csh: RELION 3.1 calls its scripts with it, and they are plain enough for sh."""
    environment = dict(os.environ)
    if shutil.which("csh") is None:
        place = tmp_path / "bin"
        place.mkdir()
        csh = place / "csh"
        csh.write_text('#!/bin/sh\nexec sh "$@"\n')
        csh.chmod(0o755)
        environment["PATH"] = f"{place}:{environment['PATH']}"
    return environment
