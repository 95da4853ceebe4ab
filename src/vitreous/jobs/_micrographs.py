"""Reading a list of micrographs."""

from __future__ import annotations

from pathlib import Path

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.io.relion import read_dataset


def read_micrographs(path: Path, remedy: str) -> Dataset:
    """The micrographs of a STAR file. Raises InputError, with the remedy, for one that lists something else."""
    dataset = read_dataset(path)
    if dataset.kind != "micrographs" or "micrograph_name" not in dataset.rows:
        raise InputError(path, f"lists {dataset.kind}, not micrographs", remedy)
    return dataset
