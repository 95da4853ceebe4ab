from __future__ import annotations

from pathlib import Path

import pytest

from vitreous.core.errors import InputError
from vitreous.pipeline.project import Project
from vitreous.pipeline.spa import friendly_size, link_movies


@pytest.mark.parametrize(("size", "expected"), [(1, 2), (63.2, 64), (65, 72), (195, 200), (256, 256), (257, 270)])
def test_sizes_that_ffts_like(size: float, expected: int) -> None:
    assert friendly_size(size) == expected


def test_movies_elsewhere_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.tiff").touch()
    monkeypatch.chdir(tmp_path)
    project = Project("p").create()
    assert link_movies(project, "raw/*.tiff") == "Movies/*.tiff"
    assert (project.root / "Movies/a.tiff").exists()
    assert link_movies(project, "raw/*.tiff") == "Movies/*.tiff"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/b.tiff").touch()
    with pytest.raises(InputError, match="another project"):
        link_movies(project, "other/*.tiff")


def test_movies_inside_the_project_are_left_where_they_are(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.tiff").touch()
    assert link_movies(project, str(tmp_path / "raw/*.tiff")) == "raw/*.tiff"


def test_no_movies(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file fits"):
        link_movies(Project(tmp_path).create(), str(tmp_path / "*.tiff"))
