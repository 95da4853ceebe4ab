"""A project's graph: the jobs that ran (processes), the files they made (nodes) and who read what (edges)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Status = Literal["Running", "Scheduled", "Succeeded", "Failed", "Aborted"]


@dataclass(frozen=True)
class Process:
    """One job of the project. name: "Refine3D/job012/" (RELION's form, with the slash); alias: "None" for none."""

    name: str
    type: str  # RELION's type label: "relion.refine3d"
    status: Status
    alias: str = "None"

    @property
    def number(self) -> int:
        """The job's number; 0 where the name bears none."""
        tail = self.name.rstrip("/").rsplit("/", 1)[-1]
        return int(tail[3:]) if tail.startswith("job") and tail[3:].isdigit() else 0


@dataclass(frozen=True)
class Graph:
    """What default_pipeline.star holds.

    counter: number of the next job. nodes: file -> RELION's node type. inputs: (file, process) pairs; outputs:
    (process, file) pairs.
    """

    counter: int = 1
    processes: tuple[Process, ...] = ()
    nodes: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()

    def find(self, name: str) -> Process | None:
        """The process of this name (with or without the slash)."""
        wanted = name.rstrip("/") + "/"
        return next((process for process in self.processes if process.name == wanted), None)

    def with_process(self, process: Process) -> Graph:
        """The graph with a process added, or replaced where it is there already."""
        others = tuple(one for one in self.processes if one.name != process.name)
        ordered = tuple(sorted((*others, process), key=lambda one: one.number))
        return replace(self, processes=ordered, counter=max(self.counter, process.number + 1))

    def with_inputs(self, process: str, files: list[str]) -> Graph:
        """The graph with the files that a process reads; only files that are nodes can be edges."""
        known = dict(self.nodes)
        new = [(file, process) for file in files if file in known and (file, process) not in self.inputs]
        return replace(self, inputs=(*self.inputs, *new))

    def with_outputs(self, process: str, nodes: dict[str, str]) -> Graph:
        """The graph with the nodes that a process made (those it made before are forgotten)."""
        old = {file for owner, file in self.outputs if owner == process}
        kept = tuple((file, kind) for file, kind in self.nodes if file not in old and file not in nodes)
        outputs = tuple(edge for edge in self.outputs if edge[0] != process and edge[1] not in nodes)
        return replace(
            self,
            nodes=(*kept, *nodes.items()),
            outputs=(*outputs, *((process, file) for file in nodes)),
            inputs=tuple(edge for edge in self.inputs if edge[0] not in old or edge[0] in nodes),
        )
