"""The nouns of the matching jobs: a micrograph's search, what it may use, how hits are chosen, what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vitreous.methods.matching.match import Hits, MatchSettings
from vitreous.methods.matching.transfer import Lens


@dataclass(frozen=True)
class PeakChoice:
    """How hits are chosen: see methods.matching.match.find_hits; min_distance in A."""

    false_positives: float = 1.0
    threshold: float = 0.0
    calibrated: bool = False
    p_value: float = 0.0
    min_distance: float = 10.0


@dataclass(frozen=True)
class Machine:
    """What a search may use. checkpoint_interval: seconds between saves of the running statistics.

    strategy: "full", or "hierarchical" (on the CPU, no checkpoints: it is short).
    """

    device: torch.device
    memory: float
    seed: int = 1
    checkpoint_interval: float = 600.0
    strategy: str = "full"


@dataclass(frozen=True)
class Matched:
    """What came of one micrograph, and the files of its maps. n_correlations: at each pixel; rate: a second."""

    hits: Hits
    n_correlations: int
    box: int
    shape: tuple[int, int]
    files: dict[str, Path]
    rate: float


@dataclass(frozen=True)
class Task:
    """One micrograph: its name in STAR files, where it lies, its optics, what to search, where results go."""

    name: str
    path: Path
    lens: Lens
    settings: MatchSettings
    stem: Path
    files: dict[str, Path]

    @property
    def checkpoint(self) -> Path:
        """Where the running statistics are kept."""
        return self.stem.with_name(f"{self.stem.name}_checkpoint.npz")

    @property
    def record(self) -> Path:
        """Where it is written down that the search has ended."""
        return self.stem.with_name(f"{self.stem.name}_searched.json")
