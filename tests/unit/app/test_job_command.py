"""Jobs through the command line: where they run, --continue, --o, vitreous run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vitreous.app import cli
from vitreous.app.job_command import _from_here
from vitreous.data.volume import Volume
from vitreous.io.mrc import write_map
from vitreous.pipeline.project import Project, exit_marker, read_record


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in, with a map of a ball."""
    place = tmp_path / "here"
    place.mkdir()
    axis = torch.arange(24, dtype=torch.float32) - 12
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    write_map(place / "map.mrc", Volume((6.0 - (x**2 + y**2 + z**2).sqrt()).clamp(0, 1), 3.0))
    monkeypatch.chdir(place)
    return place


MASK = ["--quiet", "mask", "--i", "map.mrc", "--cpu", "--j", "1"]


def test_the_next_number_in_the_project_where_one_is(here: Path) -> None:
    assert cli.run(MASK) == 0
    assert cli.run([*MASK, "--lowpass", "20"]) == 0
    assert exit_marker(here / "MaskCreate/job002") == "Succeeded"
    assert (here / "MaskCreate/job002/report.html").exists()
    assert [one.name for one in Project(here).graph().processes] == ["MaskCreate/job001/", "MaskCreate/job002/"]


def test_continue_takes_the_last_job_and_its_parameters(here: Path) -> None:
    assert cli.run([*MASK, "--lowpass", "20"]) == 0
    assert cli.run(["--quiet", "mask", "--continue", "--extend", "1"]) == 0
    record = read_record(here / "MaskCreate/job001")
    assert record is not None
    assert (record["parameters"]["lowpass"], record["parameters"]["extend"]) == (20.0, 1.0)
    assert not (here / "MaskCreate/job002").exists()


def test_continue_of_a_file_in_a_job(here: Path) -> None:
    assert cli.run(MASK) == 0
    assert cli.run(["--quiet", "mask", "--continue", "MaskCreate/job001/mask.mrc"]) == 0
    assert len(Project(here).graph().processes) == 1


def test_continue_with_nothing_to_continue(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["mask", "--continue"]) == 2
    assert "no mask job yet" in capsys.readouterr().err


def test_another_jobs_directory_is_not_continued(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(MASK) == 0
    assert cli.run(["postprocess", "--i", "map.mrc", "--continue", "MaskCreate/job001"]) == 2
    assert "holds a mask job" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["out", "out/run"])
def test_a_directory_of_ones_own(here: Path, output: str) -> None:
    assert cli.run([*MASK, "--o", output]) == 0
    assert (here / "out/mask.mrc").exists()
    assert not (here / "default_pipeline.star").exists()


def test_a_directory_elsewhere_with_a_file_from_here(here: Path, tmp_path: Path) -> None:
    assert cli.run([*MASK, "--o", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere/mask.mrc").exists()


def test_a_project_elsewhere(here: Path, tmp_path: Path) -> None:
    arguments = ["--quiet", "mask", "--i", str(here / "map.mrc"), "--project", str(tmp_path / "p"), "--cpu"]
    assert cli.run(arguments) == 0
    assert (tmp_path / "p/MaskCreate/job001/mask.mrc").exists()


def test_a_jobs_record_runs_again(here: Path) -> None:
    assert cli.run(MASK) == 0
    assert cli.run(["--quiet", "run", "MaskCreate/job001/job.yaml"]) == 0
    first, second = (here / f"MaskCreate/job00{n}/mask.mrc" for n in (1, 2))
    assert first.read_bytes()[1024:] == second.read_bytes()[1024:]  # behind the header, which has the time


def test_a_missing_input_is_one_line_and_the_job_is_marked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--quiet", "mask", "--i", "gone.mrc", "--cpu"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "gone.mrc" in lines[0]
    assert exit_marker(here / "MaskCreate/job001") == "Failed"


def test_lists_of_files_from_here(here: Path) -> None:
    (here / "other.mrc").touch()
    assert _from_here(["map.mrc", "other.mrc"]) == [str(Path.cwd() / name) for name in ("map.mrc", "other.mrc")]
    assert _from_here([1, 4]) == [1, 4]
