from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from vitreous.core.errors import InputError
from vitreous.job import catalogue, find
from vitreous.pipeline.project import Project
from vitreous.pipeline.spa import STEPS, SpaParameters, friendly_size, link_movies, run_spa


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


def settings(tmp_path: Path, **changes: Any) -> SpaParameters:
    (tmp_path / "a.tiff").touch()
    values = {
        "movies": str(tmp_path / "*.tiff"),
        "pixel_size": 1.0,
        "voltage": 300.0,
        "dose": 1.0,
        "particle_diameter": 120.0,
    }
    return SpaParameters(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"movies": "nowhere/*.tiff"}, "no file fits"),
        ({"symmetry": "Q7"}, "unknown point group 'Q7'"),
        ({"gain": "gone.mrc"}, "--gain gone.mrc: there is no such file"),
        ({"box": 64}, "--box: is 64 A wide, less than the particle"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        run_spa(tmp_path / "project", settings(tmp_path, **changes))
    assert not (tmp_path / "project").exists()


def test_every_step_has_its_job() -> None:
    assert {step.job for step in STEPS} <= set(catalogue())
    for step in STEPS:
        assert find(step.job).name == step.job
