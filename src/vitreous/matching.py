"""Template matching as a library: a search from Leopard-EM's YAML, and its parts as functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vitreous.core.search_grid import search_orientations
from vitreous.io.leopard import MAP_NAMES, LeopardMatch, read_match_config
from vitreous.io.mrc import read_map
from vitreous.jobs._leopard import lens_of_leopard, settings_of_leopard
from vitreous.jobs._matching import match_file
from vitreous.jobs._matching_tables import results_columns
from vitreous.jobs._matching_task import Machine, Matched, PeakChoice, Task
from vitreous.methods.matching.filters import Filters
from vitreous.methods.matching.match import Hits, MatchSettings, find_hits, match_micrograph
from vitreous.methods.matching.significance import detection_threshold
from vitreous.methods.matching.transfer import Lens
from vitreous.runtime import memory

__all__ = [
    "Filters",
    "Hits",
    "Lens",
    "MatchSettings",
    "MatchTemplate",
    "PeakChoice",
    "detection_threshold",
    "find_hits",
    "match_micrograph",
    "search_orientations",
]


@dataclass
class MatchTemplate:
    """One micrograph and one template as a Leopard-EM configuration describes them.

    search = MatchTemplate.from_yaml("config.yaml"); search.run(); table = search.to_dataframe()
    """

    config: LeopardMatch
    lens: Lens
    settings: MatchSettings
    choice: PeakChoice = field(default_factory=PeakChoice)
    result: Matched | None = None

    @staticmethod
    def from_yaml(path: str | Path) -> MatchTemplate:
        """Read a match_template YAML of Leopard-EM. Raises InputError."""
        config = read_match_config(path)
        return MatchTemplate(config, lens_of_leopard(config), settings_of_leopard(config, Path(path)))

    def run(self, *, device: torch.device | str | None = None, robust: bool = False, resume: bool = False) -> Matched:
        """Search, write the maps that the configuration names, keep the result."""
        if device is None:
            device = "cuda" if torch.cuda.is_available() and not self.config.uses_cpu else "cpu"
        chosen = torch.device(device)
        files = {ours: self.config.maps[theirs] for ours, theirs in MAP_NAMES.items() if theirs in self.config.maps}
        folder = next(iter(files.values())).parent if files else Path()
        where, settings = self.config.micrograph, replace(self.settings, trimmed=robust)
        self.result = match_file(
            Task(str(where), where, self.lens, settings, folder / ".matching", files),
            read_map(self.config.template),
            self.choice,
            Machine(chosen, memory.budget(0.0, chosen)),
            resume=resume,
        )
        return self.result

    def to_dataframe(self) -> Any:
        """The hits as a pandas DataFrame, Leopard-EM's columns. Raises ImportError where pandas is not installed."""
        columns = self.to_columns()
        try:
            import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError as error:
            raise ImportError("to_dataframe needs pandas: pip install pandas, or use to_columns()") from error
        return pandas.DataFrame(columns)

    def to_columns(self) -> dict[str, Any]:
        """The hits as arrays by column name. Raises RuntimeError before `run`."""
        if self.result is None:
            raise RuntimeError("nothing has been searched yet: call run()")
        return results_columns(self.result, self.lens, self.config.micrograph, self.config.template)
