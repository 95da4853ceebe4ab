from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import yaml

from vitreous.app import cli
from vitreous.job import catalogue, find

JOBS = sorted(catalogue())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def assert_one_line(error: str) -> None:
    lines = [line for line in error.splitlines() if line.strip()]
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")


def test_help_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name in (*JOBS, "doctor", "status", "run"):
        assert f"  {name} " in out


def test_help_is_quick_and_imports_no_torch() -> None:
    start = time.monotonic()
    program = "import sys; from vitreous.app.cli import run; run(['--help']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=os.environ, timeout=30)
    assert time.monotonic() - start < 10  # 0.2 s on a quiet machine


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_help_with_each_parameter(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    for field in find(name).Parameters.model_fields:
        assert f"--{field.replace('_', '-')}" in out
    assert "Running:" in out


@pytest.mark.parametrize("name", JOBS)
def test_every_job_dumps_yaml_that_names_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, name, "--dump-yaml", "--seed", "7")
    assert code == 0
    record = yaml.safe_load(out)
    assert record["job"] == name
    assert str(record["parameters"]["seed"]) == "7"
    assert set(record["parameters"]) == set(find(name).Parameters.model_fields)


@pytest.mark.parametrize("name", JOBS)
def test_names_and_folders_are_consistent(name: str) -> None:
    entry, job = catalogue()[name], find(name)
    assert (entry.name, entry.folder, entry.help) == (job.name, job.folder, job.help)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["doctor", "--nonsense"],
        ["run"],
        ["run", "missing.yaml"],
        ["status", "missing"],
    ],
)
def test_bad_command_lines_are_one_line_and_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert_one_line(error)


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("arguments", [["--no-such-option", "1"], ["--seed", "x"], ["--threads", "-3"]])
def test_bad_options_of_every_job(
    name: str,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, name, *arguments)
    assert code == 2
    assert_one_line(error)
    assert list(tmp_path.iterdir()) == []  # nothing is started for a command line that cannot run


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1\n", "which job"),
        ("job: nonsense\n", "no job 'nonsense'"),
        ("job: [", "is not YAML"),
        ("job: import\nparameters: 3\n", "list of names"),
    ],
)
def test_bad_yaml_is_one_line(
    text: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "import" in text and "import" not in JOBS:
        pytest.skip("needs the import job")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(text)
    code, _, error = run(capsys, "run", "job.yaml")
    assert code == 2
    assert_one_line(error)
    assert words in error


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    for title in ("vitreous", "memory", "torch", "relion", "will use"):
        assert f"\n{title}" in f"\n{out}"


def test_simulate_is_two_words_or_one() -> None:
    for name in JOBS:
        if name.startswith("simulate-"):
            with cli.suite.make_context("vitreous", ["--quiet"]) as context:
                found, command, rest = cli.suite.resolve_command(context, ["simulate", name[9:], "--x"])
            assert (found, rest) == (name, ["--x"])
            assert command is not None


def test_doctor_shows_the_plan_of_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--plan", "--ranks 3 --j 3 --gpu 2:2:1,3 --K 50", "--devices", "4")
    assert code == 0
    rows = [line.split()[:5] for line in out.splitlines()[1:5]]
    assert rows == [
        ["0", "0", "GPU", "2", "3"],
        ["1", "1", "GPU", "2", "3"],
        ["2", "2", "GPU", "1", "2"],
        ["3", "2", "GPU", "3", "1"],
    ]
    code, out, _ = run(capsys, "doctor", "--plan", "--ranks 2 --gpu", "--devices", "4")
    assert [line.split()[3] for line in out.splitlines()[1:]] == ["0", "1", "2", "3"]


def test_a_plan_that_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("--ranks 0", "--gpu 9", "--gpu 1 --cpu"):
        code, _, err = run(capsys, "doctor", "--plan", words, "--devices", "4")
        assert code == 2
        assert len(err.strip().splitlines()) == 1


def test_gpu_needs_no_value() -> None:
    command = cli.suite.get_command(click.Context(cli.suite), "class2d")
    assert command is not None
    context = command.make_context("class2d", ["--i", "x.star", "--gpu", "--j", "2"])
    assert (context.params["gpu"], context.params["threads"]) == ("", "2")
