"""autopick and extract on small micrographs of discs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vitreous.app.report.figures import autopick as autopick_figures
from vitreous.app.report.figures import extract as extract_figures
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import open_stack, write_image
from vitreous.io.relion import read_dataset, read_table, write_dataset, write_tables
from vitreous.io.stacks import ParticleStack
from vitreous.job import Context, Job, Outputs
from vitreous.jobs.autopick import Autopick
from vitreous.jobs.extract import Extract

PIXEL, SHAPE, RADIUS = 4.0, (420, 460), 14
NAMES = [f"MotionCorr/job002/movies/m{i}.mrc" for i in range(3)]


def truth(index: int) -> np.ndarray:
    """Centres (x, y) on a jittered grid."""
    rng = np.random.default_rng(index)
    x, y = np.meshgrid(np.arange(50, SHAPE[1] - 40, 60), np.arange(50, SHAPE[0] - 40, 60))
    return np.stack([x.ravel(), y.ravel()], axis=1) + rng.integers(-6, 7, (x.size, 2))


@pytest.fixture(scope="module")
def picked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three micrographs and their picks; tests get copies."""
    folder = tmp_path_factory.mktemp("picked")
    make_project(folder)
    pick(folder)
    return folder


@pytest.fixture
def project(picked: Path, tmp_path: Path) -> Path:
    return shutil.copytree(picked, tmp_path / "project")


def make_project(tmp_path: Path) -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for index, name in enumerate(NAMES):
        image = np.random.default_rng(10 + index).normal(100, 4, SHAPE)
        for px, py in truth(index):
            image -= 4.0 * (np.hypot(x - px, y - py) < RADIUS)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, image.astype(np.float32), PIXEL)
    optics = Table(
        {"optics_group_name": ["a"], "optics_group": [1], "micrograph_pixel_size": [PIXEL], "voltage": [300.0],
         "cs": [2.7], "amplitude_contrast": [0.1]}
    )  # fmt: skip
    rows = Table({"micrograph_name": NAMES, "optics_group": [1] * 3, "defocus_u": [2e4, 2.1e4, 2.2e4],
                  "defocus_v": [1.9e4, 2e4, 2.1e4], "defocus_angle": [10.0, 20.0, 30.0]})  # fmt: skip
    write_dataset(tmp_path / "micrographs.star", Dataset("micrographs", optics, rows))


def run(
    job: type[Job], project: Path, folder: str, *, threads: int = 1, resume: bool = False, **values: object
) -> Outputs:
    directory = project / folder
    directory.mkdir(parents=True, exist_ok=True)
    params = job.Parameters(**values)
    context = Context(project, directory, torch.device("cpu"), threads, 1, 1 << 30, resume)
    outputs = job().run(params, context)
    assert all((project / node).is_file() for node in outputs.nodes)
    (directory / "job.yaml").write_text(yaml.safe_dump({"parameters": params.model_dump()}))
    return outputs


def pick(project: Path, **more: object) -> Outputs:
    settings = {"input": "micrographs.star", "diameter_min": 100.0, "diameter_max": 125.0, "use_ctf": False}
    return run(Autopick, project, "AutoPick/job004", **{**settings, **more})


def cut(project: Path, folder: str = "Extract/job005", **more: object) -> Outputs:
    settings = {"micrographs": "micrographs.star", "coordinates": "AutoPick/job004/autopick.star", "box": 48}
    return run(Extract, project, folder, **{**settings, **more})


def test_picks_are_listed_as_relion_does(project: Path) -> None:
    outputs = pick(project)
    listing = read_table(project / "AutoPick/job004/autopick.star", "coordinate_files")
    assert list(listing["micrograph_name"]) == NAMES
    assert listing["coordinate_file"][0] == "AutoPick/job004/movies/m0_autopick.star"
    for index, file in enumerate(listing["coordinate_file"]):
        picks = read_table(project / file)
        points = np.stack([picks["coordinate_x"], picks["coordinate_y"]], axis=1)
        nearest = np.hypot(*(truth(index)[:, None] - points[None]).transpose(2, 0, 1)).min(axis=1)
        assert (nearest < 4).mean() > 0.95
        assert picks.n_rows <= 1.05 * len(truth(index))
        assert (np.diff(picks["pick_score"]) <= 0).all()
    assert outputs.metrics["n_micrographs"] == 3


def test_templates_pick_what_looks_like_them(project: Path) -> None:
    y, x = np.mgrid[:32, :32] - 16
    disc = (np.hypot(y, x) < RADIUS * PIXEL / 5.0).astype(np.float32)
    write_image(project / "classes.mrcs", np.stack([np.where(np.abs(x) < 3, 1, 0).astype(np.float32), disc]), 5.0)
    pick(project, ref="classes.mrcs", psi_step=45.0)
    for index in range(3):
        picks = read_table(project / f"AutoPick/job004/movies/m{index}_autopick.star")
        points = np.stack([picks["coordinate_x"], picks["coordinate_y"]], axis=1)
        nearest = np.hypot(*(truth(index)[:, None] - points[None]).transpose(2, 0, 1)).min(axis=1)
        assert (nearest < 4).mean() > 0.95
        assert picks.n_rows <= 1.05 * len(truth(index))
        assert (picks["class_number"] == 2).mean() > 0.95
    first = (project / "AutoPick/job004/movies/m0_autopick.star").read_bytes()
    (project / NAMES[0]).unlink()
    pick(project, ref="classes.mrcs", psi_step=45.0, resume=True)
    assert (project / "AutoPick/job004/movies/m0_autopick.star").read_bytes() == first


def test_bad_templates_are_one_line(project: Path) -> None:
    write_image(project / "empty.mrcs", np.zeros((2, 32, 32), np.float32), 5.0)
    with pytest.raises(InputError, match="one of the templates is empty"):
        pick(project, ref="empty.mrcs")
    write_image(project / "odd.mrcs", np.ones((2, 31, 31), np.float32), 5.0)
    with pytest.raises(InputError, match="cannot be used"):
        pick(project, ref="odd.mrcs")


def test_a_bad_micrograph_is_set_aside_and_all_bad_is_an_error(project: Path) -> None:
    (project / NAMES[1]).write_bytes(b"not an image")
    outputs = pick(project)
    assert [one.item for one in outputs.quarantined] == [NAMES[1]]
    for name in NAMES:
        (project / name).write_bytes(b"not an image")
    with pytest.raises(InputError, match="none of its 3 micrographs"):
        pick(project)


def test_picking_resumes_from_candidates(project: Path) -> None:
    first = pick(project)
    before = (project / "AutoPick/job004/movies/m0_autopick.star").read_bytes()
    (project / NAMES[0]).unlink()  # not read again
    (project / "AutoPick/job004/movies/m1_candidates.star").write_text("damaged")
    second = pick(project, threads=2, resume=True)
    assert second.metrics == first.metrics
    assert (project / "AutoPick/job004/movies/m0_autopick.star").read_bytes() == before


@pytest.mark.parametrize("change", ["diameter", "template", "defocus"])
def test_continuing_with_other_settings_searches_anew(project: Path, change: str) -> None:
    disc = (np.hypot(*(np.mgrid[:32, :32] - 16)) < RADIUS * PIXEL / 5.0).astype(np.float32)
    write_image(project / "class.mrcs", disc[None], 5.0)
    settings: dict[str, object] = {"psi_step": 180.0, "use_ctf": change == "defocus"}
    if change == "template":
        settings["ref"] = "class.mrcs"
    pick(project, **settings)
    stored = project / "AutoPick/job004/movies/m0_candidates.star"
    before = stored.read_bytes()
    pick(project, **settings, threshold=1.0, resume=True)
    assert stored.read_bytes() == before  # a threshold is chosen among them
    if change == "diameter":
        settings["diameter_max"] = 140.0
    elif change == "template":
        write_image(project / "class.mrcs", disc[None] - np.roll(disc[None], 9, 2), 5.0)
    else:
        text = (project / "micrographs.star").read_text()
        (project / "micrographs.star").write_text(text.replace("20000", "14000"))
    pick(project, **settings, resume=True)
    assert stored.read_bytes() != before
    resumed = stored.read_bytes()
    pick(project, **settings)
    assert stored.read_bytes() == resumed


def test_diameters_the_wrong_way_round(project: Path) -> None:
    with pytest.raises(InputError, match="diameter_min is larger"):
        pick(project, diameter_min=200.0)


def test_extracted_particles_carry_ctf_optics_and_white_discs(project: Path) -> None:
    outputs = cut(project, rescale=32)
    dataset = read_dataset(project / "Extract/job005/particles.star")
    assert len(dataset) == outputs.metrics["n_particles"] > 100
    assert dataset.optics["pixel_size"][0] == pytest.approx(6.0)
    assert dataset.optics["box"][0] == 32
    of_second = dataset.rows["micrograph_name"] == NAMES[1]
    assert np.allclose(dataset.rows["defocus_u"][of_second], 2.1e4)
    assert dataset.rows["image_name"][0] == "000001@Extract/job005/movies/m0.mrcs"
    source = ParticleStack(dataset, project)
    assert source.pixel_size == pytest.approx(6.0)
    mean = source[np.arange(len(source))].mean(dim=0)
    assert mean[12:20, 12:20].mean() > 0.5
    assert abs(float(mean[:4].mean())) < 0.1


def test_extraction_resumes_and_threads_do_not_matter(project: Path) -> None:
    cut(project, white_dust=3.5)
    stack = project / "Extract/job005/movies/m2.mrcs"
    before, particles = stack.read_bytes(), (project / "Extract/job005/particles.star").read_bytes()
    stack.write_bytes(before[: len(before) // 2])
    untouched = (project / "Extract/job005/movies/m0.mrcs").stat().st_mtime_ns
    cut(project, white_dust=3.5, threads=2, resume=True)
    assert stack.read_bytes() == before
    assert (project / "Extract/job005/particles.star").read_bytes() == particles
    assert (project / "Extract/job005/movies/m0.mrcs").stat().st_mtime_ns == untouched


def test_reextraction_centres_on_refined_origins(project: Path) -> None:
    """Picks that are off by a known amount, with origins that say so, give centred windows."""
    off, files = np.array([5, -3]), []
    for index in range(3):
        files.append(f"p{index}.star")
        points = truth(index) + off
        write_tables(project / files[-1], {"": Table({"coordinate_x": points[:, 0] * 1.0,
                                                      "coordinate_y": points[:, 1] * 1.0})})  # fmt: skip
    listing = Table({"micrograph_name": NAMES, "coordinate_file": files})
    write_tables(project / "picks.star", {"coordinate_files": listing})
    cut(project, coordinates="picks.star")
    dataset = read_dataset(project / "Extract/job005/particles.star")
    # position = coordinate - origin / pixel size
    moved = dataset.with_columns(
        origin_x=np.full(len(dataset), off[0] * PIXEL + 0.8), origin_y=np.full(len(dataset), off[1] * PIXEL)
    )
    write_dataset(project / "run_data.star", moved)
    cut(project, "Extract/job006", coordinates="", particles="run_data.star", recenter=True)
    again = read_dataset(project / "Extract/job006/particles.star")
    points = np.stack([again.rows["coordinate_x"], again.rows["coordinate_y"]], axis=1)
    np.testing.assert_allclose(points, np.concatenate([truth(i) for i in range(3)]))
    np.testing.assert_allclose(again.rows["origin_x"], 0.8, atol=1e-5)
    np.testing.assert_allclose(again.rows["origin_y"], 0.0, atol=1e-5)
    assert again.rows["original_image_name"][3] == dataset.rows["image_name"][3]
    mean = ParticleStack(again, project)[np.arange(len(again))].mean(dim=0).numpy()
    y, x = np.mgrid[:48, :48]
    weight = np.clip(mean - 0.3, 0, None)
    assert (weight * x).sum() / weight.sum() == pytest.approx(24, abs=0.5)
    assert (weight * y).sum() / weight.sum() == pytest.approx(24, abs=0.5)


def test_coordinates_by_suffix_and_by_list_are_one(project: Path) -> None:
    first = cut(project).metrics["n_particles"]
    found = cut(project, "Extract/job006", coordinates="", coord_suffix="_autopick.star", coord_dir="AutoPick/job004")
    assert found.metrics["n_particles"] == first
    one, two = (read_dataset(project / f"Extract/job00{n}/particles.star").rows for n in (5, 6))
    np.testing.assert_array_equal(one["coordinate_x"], two["coordinate_x"])


def test_reextraction_centres_on_what_stands_out_in_the_class(project: Path) -> None:
    """The class shows its particle 8 A right of and 12 A above the centre; particles are turned by known angles."""
    y, x = np.mgrid[:24, :24] - 12
    spot = np.exp(-((x - 2.0) ** 2 + (y + 3.0) ** 2) / 8.0).astype(np.float32)
    write_image(project / "classes.mrcs", np.stack([np.zeros_like(spot), spot]), 4.0)
    cut(project)
    dataset = read_dataset(project / "Extract/job005/particles.star")
    n, psi = len(dataset), np.random.default_rng(0).choice([0.0, 90.0, 180.0], len(dataset))
    found = dataset.with_columns(origin_x=np.zeros(n), origin_y=np.zeros(n), psi=psi, class_number=np.full(n, 2))
    write_dataset(project / "run_data.star", found)
    with pytest.raises(InputError, match="not --recenter"):
        cut(project, "Extract/job006", coordinates="", particles="run_data.star", recenter_on="classes.mrcs")
    again = {"coordinates": "", "particles": "run_data.star", "recenter": True, "recenter_on": "classes.mrcs"}
    cut(project, "Extract/job007", **again)
    rows = read_dataset(project / "Extract/job007/particles.star").rows
    step = (
        np.stack([rows[c] - dataset.rows[c] for c in ("coordinate_x", "coordinate_y")], 1)
        - np.stack([rows["origin_x"], rows["origin_y"]], 1) / PIXEL
    )
    # A of conventions.md: with psi 90, (x, y) of the reference lies at (y, -x) of the image.
    expected = {0.0: (2.0, -3.0), 90.0: (-3.0, -2.0), 180.0: (-2.0, 3.0)}
    np.testing.assert_allclose(step, [expected[angle] for angle in psi], atol=0.05)


def test_half_precision_stacks_hold_the_same_images(project: Path) -> None:
    cut(project)
    cut(project, "Extract/job006", float16=True)
    with (
        open_stack(project / "Extract/job005/movies/m0.mrcs") as full,
        open_stack(project / "Extract/job006/movies/m0.mrcs") as half,
    ):
        np.testing.assert_allclose(half[:5], full[:5], atol=5e-3)
    sizes = [(project / f"Extract/job00{n}/movies/m0.mrcs").stat().st_size for n in (5, 6)]
    assert sizes[1] < 0.55 * sizes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": 47}, "odd number"),
        ({"rescale": 64}, "larger than box"),
        ({"coordinates": ""}, "either coordinates or particles"),
        ({"bg_diameter": 60.0}, "leaves no background"),
        ({"coordinates": "missing.star"}, "missing.star"),
        ({"coordinates": "micrographs.star"}, "coordinate_files"),
        ({"coord_suffix": "_pick.star"}, "either coordinates or particles"),
        ({"coordinates": "", "coord_suffix": "_none.box", "coord_dir": "."}, "holds no coordinates"),
        ({"min_score": 1e6}, "no particle could be extracted"),
    ],
)
def test_wrong_settings_are_one_clear_line(project: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cut(project, **change)


def test_a_truncated_micrograph_is_set_aside(project: Path) -> None:
    whole = (project / NAMES[0]).read_bytes()
    (project / NAMES[0]).write_bytes(whole[: len(whole) // 2])
    outputs = cut(project)
    assert [one.item for one in outputs.quarantined] == [NAMES[0]]
    assert outputs.metrics["n_micrographs"] == 2


def test_figures_of_picks_and_particles(project: Path) -> None:
    made = autopick_figures.figures(project / "AutoPick/job004", project)
    assert [one.name for one in made] == ["picks", "scores"]
    cut(project)
    made += extract_figures.figures(project / "Extract/job005", project)
    assert [one.name for one in made[2:]] == ["particles", "mean"]
    assert all(one.png.startswith(b"\x89PNG") and one.caption for one in made)
