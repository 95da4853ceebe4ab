"""What a stopped training goes on from, exact to the last bit."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.methods.picking.training import Epoch, Progress, TrainingPlan, Weights
from vitreous.runtime.checkpoint import load_checkpoint, save_checkpoint

_GROUPS = ("weights", "moments", "best")


def save_progress(path: Path, progress: Progress, plan: TrainingPlan) -> None:
    """Write it with the plan that it belongs to."""
    arrays: dict[str, Any] = {
        f"{group}:{name}": value.numpy() for group in _GROUPS for name, value in getattr(progress, group).items()
    }
    arrays["history"] = np.array([list(asdict(epoch).values()) for epoch in progress.history], dtype=np.float64)
    arrays["plan"] = np.array(_identity(plan))
    save_checkpoint(path, arrays)


def load_progress(path: Path, plan: TrainingPlan) -> Progress | None:
    """Read it; None where there is none, or it belongs to another plan (more epochs are the same plan)."""
    arrays = load_checkpoint(path)
    if arrays is None or str(arrays.get("plan")) != _identity(plan):
        return None
    groups: dict[str, Weights] = {group: {} for group in _GROUPS}
    for key, value in arrays.items():
        group, colon, name = key.partition(":")
        if colon:
            groups[group][name] = torch.from_numpy(np.array(value))
    history = [Epoch(*(float(number) for number in row)) for row in arrays["history"]]
    return Progress(groups["weights"], groups["moments"], groups["best"], history)


def _identity(plan: TrainingPlan) -> str:
    return json.dumps(asdict(replace(plan, epochs=0)), sort_keys=True)
