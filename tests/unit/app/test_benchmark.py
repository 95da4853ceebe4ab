from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitreous.app import cli
from vitreous.app.benchmark_figures import draw_sweep


def result(name: str, seconds: float, ranks: int = 1, threads: int = 1) -> dict[str, object]:
    phases = {"scratch copy": 0.0, "of these waiting for ranks": 0.5}
    settings = {"name": name, "ranks": ranks, "threads": threads, "pool": 0}
    return {
        "figure_of_merit_s": seconds, "iteration_s": {"1": 2.0, "2": seconds - 2.0}, "phase_s": phases,
        "images_per_s": 10.0, "peak_host_gb": 1.0, "peak_device_gb": 0.0, "settings": settings,
        "machine": {"host": "a"},
    }  # fmt: skip


def test_compare_lists_the_best_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seconds in (("slow", 9.0), ("quick", 5.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(name, seconds)))
    files = [str(tmp_path / f"{name}.json") for name in ("slow", "quick")]
    assert cli.run(["benchmark", "compare", *files, "--plot", str(tmp_path / "plot.png")]) == 0
    out = capsys.readouterr().out
    assert out.index("quick") < out.index("slow")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_heat_map_of_what_was_tried(tmp_path: Path) -> None:
    draw_sweep([result("a", 9.0, 1, 1), result("b", 5.0, 1, 2), result("c", 6.0, 2, 1)], tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--synthetic", "0.1"], "--class"),
        (["--class", "2d"], "needs either -i or --synthetic"),
        (["--class", "2d", "-i", "nowhere"], "no folder of RELION's benchmark"),
        (["--class", "2d", "-n", "4096", "-j", "1", "--synthetic", "0.1"], "physical cores. Take"),
        (["compare", "no.json"], "is no result"),
    ],
)
def test_faults_are_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["benchmark", *words]) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert message in err
