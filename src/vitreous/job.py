"""What a job is: parameters declared once, a run function, the files and figures it leaves.

From one `Job` class come the command line, the YAML form, the documentation page and the record of what ran.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    import torch

    from vitreous.runtime.ranks import Ranks


def parameter(
    default: Any = ...,
    *,
    help: str,
    unit: str = "",
    aliases: tuple[str, ...] = (),
    advanced: bool = False,
    bare: str | None = None,
    **limits: Any,
) -> Any:
    """Declare one parameter of a job.

    default: leave out for a required one. unit: shown in the help. aliases: RELION's spellings without dashes,
    e.g. ("particle_diameter", "K"). limits: pydantic's ge, gt, le, lt. advanced: not in the short help. bare: what the
    option means without a value (a switch needs none).
    """
    return Field(
        default,
        description=help,
        json_schema_extra={"unit": unit, "aliases": list(aliases), "advanced": advanced, "bare": bare},
        **limits,
    )


class JobParameters(BaseModel):
    """What every job takes; each job adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = parameter(1, help="random seed: same seed, same machine, same bits", aliases=("random_seed",))
    threads: int = parameter(0, help="CPU threads (0: all that this process may use)", aliases=("j",), ge=0)
    gpu: str = parameter(
        "", help="GPUs: `:` between ranks, `,` between a rank's threads (empty: all there are; see --cpu)", bare=""
    )
    cpu: bool = parameter(False, help="stay on the CPU even where there is a GPU")
    free_gpu_memory: float = parameter(0.0, help="memory of the GPU to leave to others", unit="MB", ge=0, advanced=True)
    max_memory: float = parameter(0.0, help="memory to plan for (0: 80% of what is free)", unit="GB", ge=0)


@dataclass
class Context:
    """Where a job runs. Paths inside STAR files are relative to `project`, as RELION's are.

    directory: the job's own folder (project/Refine3D/job012). resume: an earlier run left results there to go on
    from. memory: bytes to plan for. ranks: who this process is among how many. iteration_done: called by jobs that
    iterate when an iteration's files are written: whoever draws pictures of the job draws them then.
    """

    project: Path
    directory: Path
    device: torch.device
    threads: int
    seed: int
    memory: int
    resume: bool = False
    ranks: Ranks | None = None  # None: one process
    iteration_done: Callable[[], object] = lambda: None
    closing: ExitStack = field(default_factory=ExitStack)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        """Whether this process writes the job's files: the first rank does, for all of them."""
        return self.ranks is None or self.ranks.is_first

    def generator(self) -> torch.Generator:
        """A fresh CPU generator seeded with the job's seed."""
        import torch

        return torch.Generator().manual_seed(self.seed)

    def relative(self, path: Path) -> str:
        """A path as it is to stand in a STAR file."""
        return str(Path(path).resolve().relative_to(self.project.resolve()))

    def place_of(self, name: str) -> Path:
        """Where results of a file go, without its suffix: its path below the job that made it, in this job's folder.

        MotionCorr/job002/movies/a.mrc -> AutoPick/job008/movies/a; what comes from outside goes by its name alone.
        """
        below = Path(re.sub(r"^[^/]+/job\d+/", "", name))
        if below.is_absolute() or ".." in below.parts:
            below = Path(below.name)
        return (self.directory / below).with_suffix("")


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
    shared: ClassVar[bool] = False  # several ranks can work on it together (--ranks, torchrun, srun)
    queued: ClassVar[bool] = False  # they do so by taking items from a queue: one that dies does not end the others

    @classmethod
    def continued(cls, optimiser: Path, project: Path) -> dict[str, Any]:
        """Parameters that go on from an iteration's _optimiser.star, as its files tell them.

        Only for jobs that have the parameter `optimiser`.
        """
        raise NotImplementedError(cls.name)

    @abstractmethod
    def run(self, params: Any, context: Context) -> Outputs:
        """Read, call one method, write. Raises InputError for what the user can mend."""


@dataclass(frozen=True)
class Entry:
    """A job as the catalogue knows it without importing it."""

    name: str
    help: str
    folder: str
    module: str
    shared: bool = False
    queued: bool = False


@cache
def catalogue() -> dict[str, Entry]:
    """All jobs by name, read from the sources of `vitreous.jobs` without importing them (help must be quick)."""
    package = importlib.util.find_spec("vitreous.jobs")
    entries: dict[str, Entry] = {}
    for location in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(location).glob("[!_]*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                values = _class_strings(node)
                if "name" in values and "folder" in values:
                    name, module, flags = values["name"], f"vitreous.jobs.{path.stem}", _class_flags(node)
                    entries[name] = Entry(
                        name, values.get("help", ""), values["folder"], module, "shared" in flags, "queued" in flags
                    )
    return entries


def _class_strings(node: ast.stmt) -> dict[str, str]:
    """The class attributes of a class definition that are plain strings."""
    if not isinstance(node, ast.ClassDef):
        return {}
    values: dict[str, str] = {}
    for line in node.body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        value = getattr(line, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            values[target.id] = value.value
    return values


def _class_flags(node: ast.stmt) -> set[str]:
    """The class attributes of a class definition that are plainly true."""
    if not isinstance(node, ast.ClassDef):
        return set()
    return {
        target.id
        for line in node.body
        if isinstance(line, ast.Assign | ast.AnnAssign)
        and isinstance(line.value, ast.Constant)
        and line.value.value is True
        for target in (line.targets if isinstance(line, ast.Assign) else [line.target])
        if isinstance(target, ast.Name)
    }


def find(name: str) -> type[Job]:
    """The job of this name; only its own module is imported. Raises KeyError for a name that is no job."""
    module = importlib.import_module(catalogue()[name].module)
    return next(
        one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Job) and _named(one) == name
    )


def _named(job: type[Job]) -> str:
    return str(getattr(job, "name", ""))


def registry() -> dict[str, type[Job]]:
    """All jobs by name (imports `vitreous.jobs`)."""
    return {name: find(name) for name in catalogue()}


def option_names(field_name: str, info: FieldInfo) -> list[str]:
    """All spellings of a parameter on the command line, ours first: --offset-range, --offset_range, RELION's own."""
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    aliases = extra.get("aliases")
    spellings = [str(alias) for alias in aliases] if isinstance(aliases, list) else []
    names = [field_name.replace("_", "-"), field_name, *spellings]
    return [f"--{name}" for name in dict.fromkeys(names)]
