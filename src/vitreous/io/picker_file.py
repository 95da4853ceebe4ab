"""A trained picker on disk: weights with what they belong to, read without running any code that the file may hold."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitreous.core.errors import InputError
from vitreous.runtime.atomic import atomic_path

_FORMAT = "vitreous picker 1"
_REMEDY = "Give the picker.pt of a train-picker job."


@dataclass(frozen=True)
class PickerRecord:
    """What a picker's weights belong to.

    pixel_size (A) at which it looks, diameter (A) of its particles, radius (working pixels) that was labelled around
    each pick, dark_particles, slope and offset of its calibration; made_by, n_picks and area for whoever asks later.
    """

    pixel_size: float
    diameter: float
    radius: float
    dark_particles: bool
    exclude_contamination: bool
    slope: float
    offset: float
    made_by: str
    n_picks: int
    area: float


def write_picker(path: str | Path, weights: Mapping[str, Tensor], record: PickerRecord) -> None:
    """Write a picker; the file appears whole or not at all."""
    held = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    content = {"format": _FORMAT, "record": asdict(record), "weights": held, "sha256": _checksum(held, record)}
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def read_picker(path: str | Path) -> tuple[dict[str, Tensor], PickerRecord]:
    """Weights and record. Raises InputError for what is no picker, of another format, or damaged."""
    file = Path(path)
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise InputError(file, what, "Check the name and the permissions.") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise InputError(file, "is no picker, or is damaged", _REMEDY) from error
    if not isinstance(content, dict) or not str(content.get("format", "")).startswith("vitreous picker"):
        raise InputError(file, "is no picker", _REMEDY)
    if content["format"] != _FORMAT:
        raise InputError(file, f"is a {content['format']}, this version reads {_FORMAT}", "Train it again.")
    try:
        weights, record = dict(content["weights"]), PickerRecord(**content["record"])
        sound = content["sha256"] == _checksum(weights, record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(file, "is no picker, or is damaged", _REMEDY) from error
    if not sound:
        raise InputError(file, "does not match its own checksum", "Copy it anew.")
    return weights, record


def _checksum(weights: Mapping[str, Tensor], record: PickerRecord) -> str:
    digest = hashlib.sha256(repr(asdict(record)).encode())
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)} {weights[name].dtype}".encode())
        digest.update(weights[name].numpy().tobytes())
    return digest.hexdigest()
