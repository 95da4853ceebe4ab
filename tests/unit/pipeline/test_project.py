from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vitreous.core.errors import InputError
from vitreous.data.graph import Graph, Process
from vitreous.io.relion_project import node_number, process_number, read_graph, write_graph
from vitreous.job import Job, JobParameters
from vitreous.pipeline.project import Project, exit_marker, is_locked, job_lock, set_marker


class Refine(Job):
    name = "fake-refine"
    folder = "Refine3D"
    relion_type = "relion.refine3d"
    help = "a job for this test"
    Parameters = JobParameters

    def run(self, params, context):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def test_jobs_are_numbered_through_the_project(tmp_path: Path) -> None:
    project = Project(tmp_path / "p").create()
    first, second = project.new_job(Refine), project.new_job(Refine)
    assert [first.name, second.name] == ["job001", "job002"]
    assert project.graph().counter == 3
    assert project.graph().find("Refine3D/job002").status == "Running"  # type: ignore[union-attr]


def test_a_directory_that_the_pipeline_does_not_know_is_left_alone(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    (tmp_path / "Refine3D/job001").mkdir(parents=True)
    assert project.new_job(Refine).name == "job002"


def test_nodes_and_edges(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    first = project.new_job(Refine)
    project.mark(first, Refine, "Succeeded", [], {"Refine3D/job001/run_data.star": "ParticleGroupMetadata.star.relion"})
    second = project.new_job(Refine)
    project.mark(second, Refine, "Running", ["Refine3D/job001/run_data.star", "no/node.star"], {})
    graph = project.graph()
    assert graph.inputs == (("Refine3D/job001/run_data.star", "Refine3D/job002/"),)
    assert graph.outputs == (("Refine3D/job001/", "Refine3D/job001/run_data.star"),)
    # Running a job again forgets the nodes it no longer makes.
    project.mark(first, Refine, "Succeeded", [], {"Refine3D/job001/other.star": "ParticleGroupMetadata.star.relion"})
    assert [name for name, _ in project.graph().nodes] == ["Refine3D/job001/other.star"]


def test_graph_round_trip(tmp_path: Path) -> None:
    graph = Graph(
        3,
        (
            Process("Import/job001/", "relion.import.movies", "Succeeded"),
            Process("A/job002/", "x.y", "Aborted", "A/me/"),
        ),
        (("Import/job001/movies.star", "MicrographMovieGroupMetadata.star.relion"),),
        (("Import/job001/movies.star", "A/job002/"),),
        (("Import/job001/", "Import/job001/movies.star"),),
    )
    write_graph(tmp_path / "p.star", graph)
    assert read_graph(tmp_path / "p.star") == graph


def test_numbers_of_relion_31() -> None:
    assert process_number("relion.import.movies") == 0
    assert process_number("relion.refine3d") == 10
    assert process_number("vitreous.simulate") == process_number("relion.external")
    assert node_number("DensityMap.mrc.relion") == 6


@pytest.mark.data
def test_a_real_relion_5_pipeline_is_read(data_dir: Path) -> None:
    graph = read_graph(data_dir / "betagal_empiar10204/default_pipeline.star")
    assert graph.counter == 11
    assert len(graph.processes) == 8
    assert graph.find("Extract/job009/").status == "Succeeded"  # type: ignore[union-attr]
    assert ("AutoPick/job008/autopick.star", "Extract/job009/") in graph.inputs


def test_another_star_file_is_no_pipeline(tmp_path: Path) -> None:
    (tmp_path / "p.star").write_text("data_x\n\n_rlnA 1\n")
    with pytest.raises(InputError, match="no RELION pipeline"):
        read_graph(tmp_path / "p.star")


def test_markers(tmp_path: Path) -> None:
    assert exit_marker(tmp_path) is None
    set_marker(tmp_path, "Failed")
    set_marker(tmp_path, "Succeeded")
    assert exit_marker(tmp_path) == "Succeeded"
    assert not (tmp_path / "RELION_JOB_EXIT_FAILURE").exists()
    set_marker(tmp_path, "Running")
    assert exit_marker(tmp_path) is None


def test_a_job_is_one_process_at_a_time(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom vitreous.pipeline.project import job_lock\n"
        "with job_lock(Path(sys.argv[1])):\n    pass\n"
    )
    with job_lock(tmp_path):
        assert is_locked(tmp_path)
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert other.returncode != 0
        assert "another process works on this job" in other.stderr
    assert not is_locked(tmp_path)


def test_a_file_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a project"):
        Project(tmp_path / "file")
