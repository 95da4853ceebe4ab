"""submit, status and cancel, with programs of SLURM's names that say what SLURM's would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitreous.app import cli
from vitreous.pipeline.project import Project, exit_marker

REFINE = ["refine3d", "--i", "particles.star", "--ref", "map.mrc", "--sym", "O"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and a folder of programs that comes first on the path."""
    for place in (tmp_path / "bin", tmp_path / "project"):
        place.mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path / "project"


def program(here: Path, name: str, text: str) -> None:
    path = here.parent / "bin" / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(list(words))
    return code, *capsys.readouterr()


def test_submit_writes_a_script_and_status_follows(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(here, "sbatch", 'echo "$2" > ../sent; echo "77;cluster"')
    code, out, err = run(capsys, "submit", *REFINE, "--nodes", "2", "--ranks-per-node", "3", "--time", "10:00")
    assert code == 0, err
    place = here / "Refine3D/job001"
    assert "SLURM job 77: Refine3D/job001" in out
    assert Path((here.parent / "sent").read_text().strip()) == place / "submit.sh"
    assert "--sym O --o Refine3D/job001 --continue" in (place / "submit.sh").read_text()
    assert json.loads((place / "slurm.json").read_text())["id"] == 77
    assert Project(here).graph().processes[0].status == "Scheduled"
    program(here, "squeue", "echo '77|PENDING|(Resources)|0:00|10:00|'")
    assert "Queued" in (out := run(capsys, "status")[1])
    assert "waits until nodes are free" in out
    program(here, "squeue", "echo '77|RUNNING|None|0:07|10:00|n[1-2]'")
    assert "running for 0:07 of 10:00 on n[1-2]" in run(capsys, "status")[1]
    program(here, "squeue", "echo '77|NODE_FAIL|None|0:07|10:00|n[1-2]'")
    assert "Interrupted" in (out := run(capsys, "status")[1])
    assert "node fail" in out


def test_a_template_after_the_job_is_the_jobs_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "site.sh").write_text("#!/bin/bash\n# the site's\nsrun XXXcommandXXX\n")
    search = ["match-template", "--i", "mics.star", "--template", "map.mrc", "--nodes", "2", "--dry-run"]
    code, out, err = run(capsys, "submit", *search)
    assert code == 0, err
    assert "match-template --i mics.star --template map.mrc --o" in out
    assert "#SBATCH --nodes=2" in out
    code, out, err = run(capsys, "submit", "--template", "site.sh", *search[:3], "--template=map.mrc", "--dry-run")
    assert code == 0, err
    assert "# the site's" in out
    assert "--template=map.mrc" in out


def test_cancel_in_the_queue(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(here, "sbatch", "echo 77")
    program(here, "squeue", "echo '77|PENDING|(Priority)|0:00|10:00|'")
    program(here, "scancel", 'echo "$1" > ../cancelled')
    run(capsys, "submit", *REFINE)
    assert run(capsys, "cancel", "Refine3D/job001")[0] == 0
    assert (here.parent / "cancelled").read_text() == "77\n"
    assert exit_marker(here / "Refine3D/job001") == "Aborted"
    program(here, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    code, _, err = run(capsys, "cancel", "Refine3D/job001")
    assert (code, "not in the queue any more" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["submit", *REFINE], "this machine has no SLURM"),
        (["submit", "refine3d", "--i", "x.star"], "--reference: is missing"),
        (["submit", *REFINE, "--nonsense", "1"], "--nonsense"),
        (["submit", *REFINE, "--ranks", "2"], "--ranks-per-node"),
        (["submit", "mask", "--i", "map.mrc", "--nodes", "2"], "runs in one process"),
        (["submit", "refinery"], "there is no such job"),
        (["submit", *REFINE, "--template", "no.sh"], "no.sh: cannot be read"),
        (["cancel", "Refine3D/job009"], "was not submitted"),
    ],
)
def test_faults_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(here.parent / "bin"))
    code, _, err = run(capsys, *words)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_what_sbatch_refuses_is_said_and_the_job_is_not_left_waiting(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(here, "sbatch", "echo 'sbatch: error: invalid partition specified: P' >&2; exit 1")
    code, _, err = run(capsys, "submit", *REFINE, "--partition", "P")
    assert (code, "invalid partition specified: P" in err) == (2, True)
    assert exit_marker(here / "Refine3D/job001") == "Aborted"


def test_plan_prints_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--micrographs", "3", "--hours", "16", "--nodes", "16", "--gpus-per-node", "4"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    for line in ("48 h", "16 h, 3 GPUs", "4 h, 12 GPUs", "3 x 0.25 h, 64 GPUs", "ends first: one job over all nodes"):
        assert line in out


def test_plan_from_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text('{"metrics": {"seconds": 9.0, "correlations_per_s": 355.9}}')
    code, out, _ = run(capsys, "plan", "--micrographs", "1", "--trial", str(tmp_path))
    assert (code, "1 micrographs of 16 h on one GPU" in out) == (0, True)
