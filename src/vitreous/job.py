"""What a job is: parameters declared once, a run function, the files and figures it leaves.

From one `Job` class come the command line, the YAML form, the documentation page and the record of what ran.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field


def parameter(
    default: Any = ...,
    *,
    help: str,
    unit: str = "",
    aliases: tuple[str, ...] = (),
    advanced: bool = False,
    **limits: Any,
) -> Any:
    """Declare one parameter of a job.

    default: leave out for a required one. unit: shown in the help. aliases: RELION's spellings without dashes,
    e.g. ("particle_diameter", "K"). limits: pydantic's ge, gt, le, lt. advanced: not in the short help.
    """
    return Field(
        default,
        description=help,
        json_schema_extra={"unit": unit, "aliases": list(aliases), "advanced": advanced},
        **limits,
    )


class JobParameters(BaseModel):
    """What every job takes; each job adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = parameter(1, help="random seed: same seed, same machine, same bits", aliases=("random_seed",))
    threads: int = parameter(0, help="CPU threads (0: all that this process may use)", aliases=("j",), ge=0)
    gpu: str = parameter("", help="GPUs to use, RELION's syntax (empty: all there are; see --cpu)")
    cpu: bool = parameter(False, help="stay on the CPU even where there is a GPU")
    max_memory: float = parameter(0.0, help="memory to plan for (0: 80% of what is free)", unit="GB", ge=0)


@dataclass
class Context:
    """Where a job runs. Paths inside STAR files are relative to `project`, as RELION's are.

    directory: the job's own folder (project/Refine3D/job012). resume: an earlier run left results there to go on
    from. memory: bytes to plan for.
    """

    project: Path
    directory: Path
    device: torch.device
    threads: int
    seed: int
    memory: int
    resume: bool = False

    def generator(self) -> torch.Generator:
        """A fresh CPU generator seeded with the job's seed."""
        return torch.Generator().manual_seed(self.seed)

    def relative(self, path: Path) -> str:
        """A path as it is to stand in a STAR file."""
        return str(Path(path).resolve().relative_to(self.project.resolve()))


@dataclass
class Quarantined:
    """One item (movie, micrograph) that was left out, and why."""

    item: str
    reason: str


@dataclass
class Outputs:
    """What a job leaves.

    nodes: RELION pipeline nodes, path relative to the project -> node type (e.g. "ParticleGroupMetadata.star.relion").
    metrics: figures with the unit in the name (fsc143_resolution_A). quarantined: what was left out and why.
    summary: one sentence for the log and the report.
    """

    nodes: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float | int | str] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    summary: str = ""


class Job(ABC):
    """One step of the workflow. Subclasses live in `vitreous.jobs`, one file each, and are found by import."""

    name: ClassVar[str]  # command: "refine3d"
    folder: ClassVar[str]  # project folder: "Refine3D"
    relion_type: ClassVar[str]  # RELION's job type label: "relion.refine3d"
    help: ClassVar[str]  # one line
    Parameters: ClassVar[type[JobParameters]]

    @abstractmethod
    def run(self, params: Any, context: Context) -> Outputs:
        """Read, call one method, write. Raises InputError for what the user can mend."""


def registry() -> dict[str, type[Job]]:
    """All jobs by name (imports `vitreous.jobs`)."""
    package = importlib.import_module("vitreous.jobs")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"vitreous.jobs.{module.name}")
    return {job.name: job for job in Job.__subclasses__() if job.__module__.startswith("vitreous.jobs.")}
