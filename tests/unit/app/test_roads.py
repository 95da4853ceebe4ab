"""The commands that run whole roads: what is wrong with their command lines is one line, exit 2, nothing started."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitreous.app import cli

GOOD = {
    "--movies": "*.tiff",
    "--pixel-size": "1.0",
    "--voltage": "300",
    "--dose": "1.0",
    "--particle-diameter": "120",
}


def spa(*changes: str, without: str = "") -> list[str]:
    words = [word for name, value in GOOD.items() if name != without for word in (name, value)]
    return ["spa", "project", *words, *changes]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (spa(without="--movies"), "--movies: is missing"),
        (spa(without="--pixel-size"), "--pixel-size: is missing"),
        (spa(without="--dose"), "--dose: is missing"),
        (spa(without="--particle-diameter"), "--particle-diameter: is missing"),
        (spa("--movies", "none/*.tiff"), "no file fits"),
        (spa("--pixel-size", "0"), "greater than 0"),
        (spa("--pixel-size", "1,2"), "valid number"),
        (spa("--voltage", "-300"), "--voltage: input should be greater than 0"),
        (spa("--amplitude-contrast", "7"), "less than or equal to 1"),
        (spa("--dose", "nan"), "--dose"),
        (spa("--sym", "K3"), "unknown point group 'K3'"),
        (spa("--gain", "missing.mrc"), "there is no such file"),
        (spa("--mtf", "missing.star"), "there is no such file"),
        (spa("--defects", "missing.txt"), "there is no such file"),
        (spa("--box", "32"), "less than the particle"),
        (spa("--box", "1.5"), "valid integer"),
        (spa("--K", "0"), "greater than 0"),
        (spa("--threads", "-1"), "greater than or equal to 0"),
        (spa("--max-memory", "lots"), "valid number"),
        (spa("--nonsense"), "No such option"),
        (spa("--gpu", "a"), "cannot read 'a' as a list of GPUs"),
        (spa("--gpu", "0", "--cpu"), "both --cpu and --gpu"),
        (["spa"], "Missing argument"),
        (["demo", "d", "--model", "missing.pdb"], "there is no such file"),
        (["demo", "d", "--sym", "X"], "unknown point group"),
        (["demo", "d", "--n-movies", "0"], "greater than or equal to 1"),
        (["demo-real", "d", "--data", "nowhere"], "is not there"),
        (["report", "nowhere"], "is no directory"),
        (["report", "."], "there is no run to report on"),
    ],
)
def test_one_line(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tiff").touch()
    code = cli.run(arguments)
    error = capsys.readouterr().err
    assert code == 2, error
    assert words in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("name", ["spa", "demo", "demo-real", "report", "status", "run", "doctor"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--help"]) == 0
    assert "Usage: vitreous" in capsys.readouterr().out
