"""RELION's own pipeliner reads the project file that we write, and we read what it writes back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vitreous.data.graph import Graph, Process
from vitreous.io.relion_project import read_graph, write_graph

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_pipeliner") is None, reason="relion is not installed (apt install relion)"),
]

MOVIES, MICROGRAPHS = "Import/job001/movies.star", "MotionCorr/job002/corrected_micrographs.star"


def test_relion_reads_our_pipeline_and_marks_a_finished_job(tmp_path: Path) -> None:
    graph = Graph().with_process(Process("Import/job001/", "relion.import.movies", "Succeeded"))
    graph = graph.with_outputs("Import/job001/", {MOVIES: "MicrographMovieGroupMetadata.star.relion"})
    graph = graph.with_process(Process("MotionCorr/job002/", "relion.motioncorr.own", "Running"))
    graph = graph.with_inputs("MotionCorr/job002/", [MOVIES])
    graph = graph.with_outputs("MotionCorr/job002/", {MICROGRAPHS: "MicrographGroupMetadata.star.relion"})
    for file in (MOVIES, MICROGRAPHS, "MotionCorr/job002/RELION_JOB_EXIT_SUCCESS"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    write_graph(tmp_path / "default_pipeline.star", graph)
    subprocess.run(["relion_pipeliner", "--check_job_completion"], cwd=tmp_path, check=True, timeout=60)
    after = read_graph(tmp_path / "default_pipeline.star")
    assert [(one.name, one.status) for one in after.processes] == [
        ("Import/job001/", "Succeeded"),
        ("MotionCorr/job002/", "Succeeded"),  # RELION saw the marker: it found the process under its own name
    ]
    assert after.inputs == graph.inputs
    assert after.outputs == graph.outputs
    assert after.counter == graph.counter
    assert [name for name, _ in after.nodes] == [name for name, _ in graph.nodes]
