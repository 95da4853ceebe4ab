from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.app.report.figure import Figure
from vitreous.app.report.job_page import write_job_page
from vitreous.app.report.map_view import map_view_html
from vitreous.app.report.page import figures_html, number, page, png_size, split_unit
from vitreous.app.report.project_page import write_project_page
from vitreous.app.report.surface import VIEWS, default_level, render
from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.mrc import write_map
from vitreous.job import Context, Job, JobParameters, Outputs
from vitreous.pipeline.project import Project
from vitreous.pipeline.recipe import Decision, Road, load_step, save_state
from vitreous.pipeline.runner import run_job
from vitreous.runtime.progress import Sparingly


class Links(HTMLParser):
    """What a page would load, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        if tag not in ("meta", "img", "input", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def assert_self_contained(html: str) -> None:
    links = Links()
    links.feed(html)
    assert links.open == []
    outside = [link for link in links.loads if not link.startswith(("data:", "#"))]
    assert outside == []
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)


def ball(box: int = 32) -> torch.Tensor:
    axis = torch.arange(box, dtype=torch.float32) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return 10.0 - (x**2 + y**2 + z**2).sqrt()


class Fake(Job):
    name = "fake"
    folder = "PostProcess"
    relion_type = "relion.postprocess"
    help = "writes a map"
    Parameters = JobParameters

    def run(self, params: JobParameters, context: Context) -> Outputs:
        for _ in range(2):
            write_map(context.directory / "postprocess.mrc", Volume(ball(), 1.5))
            context.iteration_done()
        return Outputs(metrics={"fsc143_resolution_A": 3.217}, summary="3.22 A <at> FSC 0.143")


def test_a_page_is_self_contained_and_escapes() -> None:
    buffer = io.BytesIO()
    Image.new("L", (300, 100)).save(buffer, format="PNG")
    figure = Figure("x", "A < B", "what one sees & why", buffer.getvalue())
    html = page("title <x>", "lead", [("a", "A", figures_html([figure])), ("b", "Empty", "")], "foot")
    assert_self_contained(html)
    assert "A &lt; B" in html
    assert 'class="wide"' in html  # three times as wide as high
    assert "Empty" not in html
    assert png_size(figure.png) == (300, 100)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fsc143_resolution_A", ("resolution (FSC 0.143)", "Å")),
        ("seconds", ("time", "s")),
        ("motion_rms_error_A", ("motion rms error", "Å")),
        ("b_factor_A2", ("b factor", "Å²")),
        ("n_particles", ("particles", "")),
    ],
)
def test_units_from_names(name: str, expected: tuple[str, str]) -> None:
    assert split_unit(name) == expected


def test_numbers_as_one_says_them() -> None:
    assert [number(value) for value in (3.2174, 1234, 250.3, "D2", 7.0)] == ["3.22", "1\u202f234", "250", "D2", "7"]


@pytest.mark.parametrize("view", VIEWS)
def test_a_ball_is_drawn_as_a_disc_lit_from_above_left(view: str) -> None:
    picture = render(ball().numpy(), 0.0, VIEWS[view], size=128)
    covered = (picture[..., 3] > 0).mean()
    assert covered == pytest.approx(np.pi * 10**2 / 32**2, rel=0.03)
    brightness = picture[..., :3].sum(axis=-1).astype(float)
    middle = picture.shape[0] // 2
    assert brightness[middle - 24, middle - 24] > 1.3 * brightness[middle + 24, middle + 24]


def test_views_are_not_mirrored() -> None:
    """Three balls at +x, +y, +z of different sizes appear where right-handed axes put them."""
    box = 48
    density = np.full((box, box, box), -1.0, dtype=np.float32)
    z, y, x = np.indices(density.shape) - box // 2
    for cx, cy, cz, radius in ((14, 0, 0, 6), (0, 14, 0, 4), (0, 0, 14, 3)):
        density = np.maximum(density, radius - np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)).astype(
            np.float32
        )

    def place(view: str) -> set[tuple[str, int]]:
        alpha = render(density, 0.0, VIEWS[view], size=96)[..., 3] > 0
        arms = {
            "right": alpha[44:54, 66:86],
            "left": alpha[44:54, 10:30],
            "up": alpha[10:30, 44:54],
            "down": alpha[66:86, 44:54],
        }
        return {(name, round(np.sqrt(arm.sum() / np.pi) / 2)) for name, arm in arms.items() if arm.any()}

    assert {name for name, _ in place("along z")} == {"right", "up"}  # x right, y up
    assert {name for name, _ in place("along y")} == {"right", "up"}  # x right, z up
    assert {name for name, _ in place("along x")} == {"right", "up"}  # y right, z up


def test_level_from_the_mask() -> None:
    density = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    mask = (density > 0.5).astype(float)
    assert default_level(density, mask) == pytest.approx(0.93, abs=0.01)


def test_map_view_holds_the_map() -> None:
    density = ball().numpy()
    html = map_view_html(density, 1.5, resolution=np.full_like(density, 4.0))
    assert_self_contained(page("t", "l", [("map", "Map", html)], "f"))
    data = json.loads(html[html.rindex('"), {') + 3 : html.rindex(");</script>")])
    assert len(data["shape"]) == 3
    assert html.count("<img") == 3


def test_job_and_project_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path).create()
    with pytest.raises(InputError, match="no run to report"):
        write_project_page(project.root)
    so_far = []
    monkeypatch.setattr(Sparingly, "_SHARE", 1e9)  # after every iteration, however short
    run = run_job(
        project,
        Fake,
        JobParameters(cpu=True, threads=1),
        on_success=lambda done: write_job_page(done.directory, tmp_path),
        on_iteration=lambda place: so_far.append(write_job_page(place, tmp_path, running=True).read_text("utf-8")),
    )
    assert len(so_far) == 2
    assert_self_contained(so_far[0])
    assert "Still running" in so_far[0]
    html = (run.directory / "report.html").read_text(encoding="utf-8")
    assert_self_contained(html)
    assert "3.22 A &lt;at&gt; FSC 0.143" in html
    road = Road(project, None)
    road.done["postprocess"] = load_step("postprocess", "fake", run.directory)
    road.decisions.append(Decision("mask", "threshold", "0.1", "Otsu <found> it"))
    save_state(road)
    text = write_project_page(project.root, truth={"pick_recall": 0.97}).read_text(encoding="utf-8")
    assert_self_contained(text)
    for words in ("3.22", "Otsu &lt;found&gt; it", "pick recall", "map-viewer", "Time and memory"):
        assert words in text
