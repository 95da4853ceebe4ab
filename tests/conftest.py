"""Shared fixtures: where the real data lies, seeded generators."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_data() -> Path:
    return Path(os.environ.get("VITREOUS_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real input; tests that need it skip with a reason where it is missing."""
    path = shared_data()
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (set VITREOUS_DATA)")
    return path


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1234)
