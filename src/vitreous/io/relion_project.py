"""RELION's project files: default_pipeline.star and job.star.

RELION 4 and later name types and statuses by labels, RELION 3.1 by numbers. Both sets of columns are written, so
that either reads the file; on reading, labels win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitreous.core.errors import InputError
from vitreous.data.graph import Graph, Process, Status
from vitreous.data.table import Table
from vitreous.io.star import StarBlock, read_star, write_star

_VERSION = ("version 30001",)
# RELION 3.1's numbers, as its pipeliner writes and reads them.
_PROCESS_NUMBERS = {
    "import": 0,
    "motioncorr": 1,
    "ctffind": 2,
    "manualpick": 3,
    "autopick": 4,
    "extract": 5,
    "select": 7,
    "class2d": 8,
    "class3d": 9,
    "refine3d": 10,
    "polish": 11,
    "maskcreate": 12,
    "joinstar": 13,
    "subtract": 14,
    "postprocess": 15,
    "localres": 16,
    "initialmodel": 18,
    "ctfrefine": 20,
    "external": 21,
}
_EXTERNAL = _PROCESS_NUMBERS["external"]
_NODE_NUMBERS = {
    "MicrographMovieGroupMetadata": 0,
    "MicrographGroupMetadata": 1,
    "MicrographCoordsGroup": 2,
    "ParticleGroupMetadata": 3,
    "ImagesData": 5,
    "DensityMap": 6,
    "Mask3D": 7,
    "OptimiserData": 9,
    "ProcessData": 14,
    "LogFile": 13,
}
_STATUS_NUMBERS: dict[Status, int] = {"Running": 0, "Scheduled": 1, "Succeeded": 2, "Failed": 3, "Aborted": 4}


def read_graph(path: str | Path) -> Graph:
    """Read default_pipeline.star (RELION 4 or later, RELION 3.1, or ours). Raises InputError for anything else."""
    blocks = read_star(path)
    if "pipeline_general" not in blocks:
        raise InputError(path, "is no RELION pipeline: there is no block data_pipeline_general", "Give a project's own")
    processes = []
    for row in _rows(blocks, "pipeline_processes"):
        processes.append(
            Process(
                str(row["rlnPipeLineProcessName"]),
                str(row.get("rlnPipeLineProcessTypeLabel") or _type_label(row)),
                _status(row),
                str(row.get("rlnPipeLineProcessAlias", "None")),
            )
        )
    nodes = tuple(
        (
            str(row["rlnPipeLineNodeName"]),
            str(row.get("rlnPipeLineNodeTypeLabel") or _node_label(int(row["rlnPipeLineNodeType"]))),
        )
        for row in _rows(blocks, "pipeline_nodes")
    )
    inputs = tuple(
        (str(row["rlnPipeLineEdgeFromNode"]), str(row["rlnPipeLineEdgeProcess"]))
        for row in _rows(blocks, "pipeline_input_edges")
    )
    outputs = tuple(
        (str(row["rlnPipeLineEdgeProcess"]), str(row["rlnPipeLineEdgeToNode"]))
        for row in _rows(blocks, "pipeline_output_edges")
    )
    counter = int(blocks["pipeline_general"].value("rlnPipeLineJobCounter"))
    return Graph(counter, tuple(processes), nodes, inputs, outputs)


def write_graph(path: str | Path, graph: Graph) -> None:
    """Write default_pipeline.star so that RELION 3.1 and RELION 4 and later both read it."""
    blocks = {"pipeline_general": StarBlock.of_values({"rlnPipeLineJobCounter": graph.counter}, _VERSION)}
    tables: dict[str, dict[str, list[Any]]] = {
        "pipeline_processes": {
            "rlnPipeLineProcessName": [process.name for process in graph.processes],
            "rlnPipeLineProcessAlias": [process.alias for process in graph.processes],
            "rlnPipeLineProcessType": [process_number(process.type) for process in graph.processes],
            "rlnPipeLineProcessStatus": [_STATUS_NUMBERS[process.status] for process in graph.processes],
            "rlnPipeLineProcessTypeLabel": [process.type for process in graph.processes],
            "rlnPipeLineProcessStatusLabel": [process.status for process in graph.processes],
        },
        "pipeline_nodes": {
            "rlnPipeLineNodeName": [name for name, _ in graph.nodes],
            "rlnPipeLineNodeType": [node_number(kind) for _, kind in graph.nodes],
            "rlnPipeLineNodeTypeLabel": [kind for _, kind in graph.nodes],
            "rlnPipeLineNodeTypeLabelDepth": [1 for _ in graph.nodes],
        },
        "pipeline_input_edges": {
            "rlnPipeLineEdgeFromNode": [file for file, _ in graph.inputs],
            "rlnPipeLineEdgeProcess": [process for _, process in graph.inputs],
        },
        "pipeline_output_edges": {
            "rlnPipeLineEdgeProcess": [process for process, _ in graph.outputs],
            "rlnPipeLineEdgeToNode": [file for _, file in graph.outputs],
        },
    }
    for name, columns in tables.items():
        if next(iter(columns.values())):
            blocks[name] = StarBlock(Table(columns), comments=_VERSION)
    write_star(path, blocks)


def write_job(path: str | Path, type_label: str, options: Mapping[str, object], *, is_continue: bool) -> None:
    """Write job.star: the job's type and its options, as RELION's interface keeps them."""
    head = {
        "rlnJobTypeLabel": type_label,
        "rlnJobType": process_number(type_label),
        "rlnJobIsContinue": int(is_continue),
        "rlnJobIsTomo": 0,
    }
    blocks = {"job": StarBlock.of_values(head, _VERSION)}
    if options:
        values = Table(
            {
                "rlnJobOptionVariable": list(options),
                "rlnJobOptionValue": [_option_text(value) for value in options.values()],
            }
        )
        blocks["joboptions_values"] = StarBlock(values, comments=_VERSION)
    write_star(path, blocks)


def process_number(type_label: str) -> int:
    """RELION 3.1's number for a job type ("relion.refine3d" -> 10); what it has no number for is external (21)."""
    parts = type_label.split(".")
    return _PROCESS_NUMBERS.get(parts[1] if len(parts) > 1 else parts[0], _EXTERNAL)


def node_number(type_label: str) -> int:
    """RELION 3.1's number for a node type label."""
    return _NODE_NUMBERS.get(type_label.split(".")[0], _NODE_NUMBERS["LogFile"])


def _option_text(value: object) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, (list, tuple)):
        return ",".join(str(one) for one in value)
    return "" if value is None else str(value)


def _rows(blocks: Mapping[str, StarBlock], name: str) -> Sequence[dict[str, Any]]:
    if name not in blocks:
        return []
    columns = blocks[name].columns
    return [columns.row(index) for index in range(columns.n_rows)]


def _type_label(row: Mapping[str, Any]) -> str:
    number = int(row["rlnPipeLineProcessType"])
    return f"relion.{next((label for label, code in _PROCESS_NUMBERS.items() if code == number), 'external')}"


def _node_label(number: int) -> str:
    return next((label for label, code in _NODE_NUMBERS.items() if code == number), "LogFile")


def _status(row: Mapping[str, Any]) -> Status:
    label = row.get("rlnPipeLineProcessStatusLabel")
    number = int(row.get("rlnPipeLineProcessStatus", _STATUS_NUMBERS["Failed"]))
    return next(
        (name for name, code in _STATUS_NUMBERS.items() if label == name or (not label and number == code)), "Failed"
    )
