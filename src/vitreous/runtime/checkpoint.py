"""The whole state between two iterations in one file, exact to the last bit.

RELION's STAR files hold decimal numbers; a run that is resumed from them would drift from one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.runtime.atomic import atomic_path


def save_checkpoint(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write named arrays; the file appears whole or the old one stays."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_checkpoint(path: Path) -> dict[str, NDArray[np.generic]] | None:
    """The arrays of a checkpoint; None where there is none or it cannot be read (then the run starts anew)."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError):
        return None
