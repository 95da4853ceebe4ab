from __future__ import annotations

from pathlib import Path

from vitreous.io.failed import read_failed, write_failed


def test_round_trip(tmp_path: Path) -> None:
    failures = [("Movies/a.tiff", "is truncated (12 bytes). Copy it anew."), ("b c.mrc", 'it\'s\n"odd" # here')]
    write_failed(tmp_path, failures)
    assert read_failed(tmp_path) == [failures[0], ("b c.mrc", "it's 'odd' # here")]
    write_failed(tmp_path, [])
    assert not (tmp_path / "failed.star").exists()
    assert read_failed(tmp_path) == []
