"""What a search of a simulated cell found, held against the truth; and all cells together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from cell import Cell

from vitreous.core.rotations import euler_to_matrix
from vitreous.core.symmetry import symmetric_distance
from vitreous.methods.matching.match import find_hits
from vitreous.methods.matching.search import SearchMaps

BOX = 128
NEAR_PX = 4.0
RADIUS_PX = 42.0


@dataclass
class Outcome:
    """One search judged: hits of targets (by number), false positives, errors of what was found."""

    found: list[int] = field(default_factory=list)
    false: int = 0
    angle_errors: list[float] = field(default_factory=list)
    defocus_errors: list[float] = field(default_factory=list)


def searchable(cell: Cell) -> list[int]:
    """Targets whose box lies on the micrograph."""
    inside = (cell.scene.coordinates >= BOX // 2) & (cell.scene.coordinates <= cell.image.shape[0] - BOX // 2)
    return [int(i) for i in np.flatnonzero(inside.all(1))]


def judge(maps: SearchMaps, cell: Cell, symmetry: str, *, calibrated: bool = False) -> Outcome:
    """Hits at one false positive against the truth."""
    hits = find_hits(maps, calibrated=calibrated, min_distance=20.0)
    result = Outcome()
    for i, (y, x) in enumerate(hits.peaks.positions):
        off = np.hypot(cell.scene.coordinates[:, 0] - x - BOX // 2, cell.scene.coordinates[:, 1] - y - BOX // 2)
        target = int(off.argmin())
        if target not in searchable(cell) and off[target] <= RADIUS_PX:
            continue
        if off[target] > NEAR_PX:
            result.false += 1
            continue
        pose = euler_to_matrix(*(torch.tensor([a[i]]) for a in (hits.phi, hits.theta, hits.psi)))
        error = symmetric_distance(pose, cell.scene.rotations[target : target + 1].to(pose), symmetry)
        result.found.append(target)
        result.angle_errors.append(float(error))
        result.defocus_errors.append(float(hits.relative_defocus[i] - cell.scene.heights[target]))
    return result


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals over all cells. Lost: targets that the full search found and the hierarchical one did not.

    speedup: of all CPU seconds together; slowest_speedup: of the cell where it gained least.
    """
    names = ("full", "full_calibrated", "hierarchical")
    found = {name: sum(len(set(row["outcomes"][name].found)) for row in rows) for name in names}
    lost = sum(len(set(row["outcomes"]["full"].found) - set(row["outcomes"]["hierarchical"].found)) for row in rows)
    full_s, quick_s = (sum(row[name] for row in rows) for name in ("full_s", "hierarchical_s"))
    angles, defoci = (
        np.concatenate([getattr(row["outcomes"]["full"], name) for row in rows])
        for name in ("angle_errors", "defocus_errors")
    )
    return {
        "speedup": round(full_s / quick_s, 2),
        "slowest_speedup": round(min(row["full_s"] / row["hierarchical_s"] for row in rows), 2),
        "lost_fraction": round(lost / max(found["full"], 1), 4),
        "cells": len(rows),
        "targets": sum(row["targets"] for row in rows),
        "found": found,
        "false_positives": {name: sum(row["outcomes"][name].false for row in rows) for name in names},
        "false_positives_accepted": len(rows),
        "median_angle_error_deg": round(float(np.median(angles)), 2),
        "largest_angle_error_deg": round(float(angles.max()), 2),
        "rms_defocus_error_A": round(float(np.sqrt(np.mean(defoci**2))), 1),
        "cpu_s": {"full": round(full_s, 1), "hierarchical": round(quick_s, 1)},
        "each": [
            {name: value for name, value in row.items() if name != "outcomes"}
            | {name: [len(set(row["outcomes"][name].found)), row["outcomes"][name].false] for name in names}
            for row in rows
        ],
    }
