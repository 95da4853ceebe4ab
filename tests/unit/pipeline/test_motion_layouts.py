from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest

from vitreous.app.benchmark_figures import draw_layouts
from vitreous.app.report.page import png_size
from vitreous.core.errors import InputError
from vitreous.io.movies import open_movie
from vitreous.pipeline.benchmark.motion_layouts import (
    Layout,
    list_movies,
    make_movies,
    measure_layout,
    parse_layouts,
    write_results,
)
from vitreous.runtime.usage import Usage, busy_seconds


def test_every_layout_with_every_number_of_workers() -> None:
    found = parse_layouts("batch, ranks", "1,4")
    assert found == [Layout("batch", 1), Layout("batch", 4), Layout("ranks", 1), Layout("ranks", 4)]


@pytest.mark.parametrize(("kinds", "workers"), [("heap", "1"), ("batch", "0"), ("batch", "two"), ("", "1")])
def test_words_that_are_none(kinds: str, workers: str) -> None:
    with pytest.raises(InputError):
        parse_layouts(kinds, workers)


def test_movies_are_made_once_and_found(tmp_path: Path) -> None:
    made = make_movies(tmp_path, 2, 128, 3)
    times = [path.stat().st_mtime_ns for path in made]
    assert make_movies(tmp_path, 2, 128, 3) == made
    assert [path.stat().st_mtime_ns for path in made] == times
    assert open_movie(made[0]).shape == (128, 128)
    assert list_movies(str(tmp_path)) == list_movies(f"{tmp_path}/*.tiff") == made
    with pytest.raises(InputError, match="names no movies"):
        list_movies(f"{tmp_path}/*.eer")


def test_the_machine_is_looked_at_while_the_block_lasts() -> None:
    before = busy_seconds()
    with Usage(every_s=0.05) as usage:
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            sum(range(1000))
    n = len(usage.samples)
    assert 3 <= n <= 13
    assert all(0 < sample["memory_gb"] < 1e5 for sample in usage.samples)
    assert max(sample["cpu_percent"] for sample in usage.samples) > 0
    assert busy_seconds() - before > 0.1
    time.sleep(0.2)
    assert len(usage.samples) == n


def test_what_is_written_of_it(tmp_path: Path) -> None:
    samples = [{"second": 1.0, "cpu_percent": 50.0, "memory_gb": 1.0}, {"second": 2.0, "cpu_percent": 90.0}]
    results = [
        {"layout": {"kind": kind, "workers": n}, "movies_per_hour": 10.0 * n, "samples": samples}
        for kind, n in (("batch", 1), ("ranks", 2))
    ]
    write_results(tmp_path, results)
    said = json.loads((tmp_path / "motion_layouts.json").read_text())
    assert said["best"] == {"kind": "ranks", "workers": 2}
    with (tmp_path / "usage.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    assert rows[3]["layout"] == "ranks"
    assert rows[3]["cpu_percent"] == "90.0"
    assert rows[3]["memory_gb"] == ""
    draw_layouts(results, tmp_path / "a.png")
    assert min(png_size((tmp_path / "a.png").read_bytes())) > 300


@pytest.mark.slow
def test_a_layout_is_run_on_the_movies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3] / "src"))
    movies = make_movies(tmp_path / "made", 2, 192, 4)
    result = measure_layout(Layout("per-file", 2), movies, tmp_path, ["--dose-per-frame", "1"])
    assert result["n_movies"] == 2
    assert result["cpu_seconds"] > 0
    assert len(list((tmp_path / "per-file_2/job").rglob("movie_*[0-9].mrc"))) == 2
    with pytest.raises(InputError, match="dose-per-frame"):
        measure_layout(Layout("batch", 1), movies, tmp_path, [])
