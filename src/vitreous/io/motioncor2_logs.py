"""MotionCor2's logs of shifts, as RELION, Scipion and facilities' scripts read them.

Shifts are pixels of the movie, what is applied to a frame. In logs of patches each line is: frame (from 1), x and y of
the patch's centre, the shift measured there, and the shift of the fitted model there, both beside the full-frame one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.data.motion import Motion, local_shift
from vitreous.runtime.atomic import write_text

Array = NDArray[np.float64]


def shift_lines(motion: Motion) -> list[str]:
    """What goes to standard output: RELION reads the full-frame shifts from there."""
    lines = ["Full-frame alignment shift"]
    lines += [
        f"...... Frame ({number:3d}) shift: {x:9.3f} {y:9.3f}" for number, (x, y) in enumerate(motion.global_shifts, 1)
    ]
    return [*lines, ""]


def log_paths(stem: str, with_patches: bool) -> dict[str, Path]:
    """Files by kind; stem: what comes before "-Full.log" (PREFIX0 for -LogFile PREFIX, LOGDIR/NAME for -LogDir)."""
    if not with_patches:
        return {"full": Path(f"{stem}-Full.log")}
    return {kind: Path(f"{stem}-Patch-{kind.capitalize()}.log") for kind in ("full", "patch", "frame")}


def write_logs(stem: str, motion: Motion) -> list[Path]:
    """Write the log of full-frame alignment, or the three of patches; returns the files."""
    with_patches = bool(motion.patch_shifts.size)
    paths = log_paths(stem, with_patches)
    rows = [f"{number:4d}  {x:8.3f}  {y:8.3f}" for number, (x, y) in enumerate(motion.global_shifts, 1)]
    if not with_patches:
        _write(paths["full"], ["# full frame alignment", *rows])
        return list(paths.values())
    ny, nx = motion.shape
    head = ["# Patch based alignment", f"# Number of patches: {len(motion.patch_centres)}"]
    size = f"# Movie size: {nx}  {ny}  {motion.n_frames}"
    _write(paths["full"], [*head, size, *rows])
    table = _patch_table(motion)
    by_patch = [*head, "# Shifts are listed per patch.", size, ""]
    for number, patch in enumerate(table, 1):
        by_patch += [f"#Patch {number:03d} raw and fit shifts", *map(_line, patch), ""]
    _write(paths["patch"], by_patch)
    by_frame = [*head, "# Shifts are listed per frame.", size, ""]
    for number in range(motion.n_frames):
        by_frame += [f"#Frame {number + 1:03d} raw and fit shifts", *map(_line, table[:, number]), ""]
    _write(paths["frame"], by_frame)
    return list(paths.values())


def _patch_table(motion: Motion) -> Array:
    """(patches, frames, 7): frame, centre x and y, measured x and y, fitted x and y."""
    n_patches, n_frames = motion.patch_shifts.shape[:2]
    frames = np.broadcast_to(np.arange(n_frames), (n_patches, n_frames))
    centres = np.broadcast_to(motion.patch_centres[:, None], (n_patches, n_frames, 2))
    fitted = local_shift(motion, frames, centres[..., 0], centres[..., 1])
    return np.concatenate([(frames + 1.0)[..., None], centres, motion.patch_shifts, fitted], axis=2)


def _line(row: Array) -> str:
    return f"{int(row[0]):4d} " + " ".join(f"{value:8.2f}" for value in row[1:])


def _write(path: Path, lines: list[str]) -> None:
    write_text(path, "\n".join(lines) + "\n")
