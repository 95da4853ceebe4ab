"""select on a small classification: good averages, junk, and what RELION and we read of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vitreous.app.report.figures import select as select_figures
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_array, write_image
from vitreous.io.relion import read_dataset, read_table, write_dataset, write_tables
from vitreous.job import Context, Outputs
from vitreous.jobs.select import Select

BOX, PIXEL, K, N = 48, 4.0, 6, 600
GOOD = (1, 2, 3, 4)  # class 5 is noise, class 6 empty
SHARES = (0.3, 0.25, 0.2, 0.1, 0.15, 0.0)


def averages() -> np.ndarray:
    rows, columns = np.mgrid[:BOX, :BOX] - BOX // 2
    rng = np.random.default_rng(0)
    images = np.zeros((K, BOX, BOX), dtype=np.float32)
    for number in GOOD:
        for px, py in rng.normal(size=(30, 2)) * [6.0, 4.0]:
            images[number - 1] += np.exp(-((columns - px) ** 2 + (rows - py) ** 2) / 8.0)
    images[4] = 3.0 * rng.normal(size=(BOX, BOX))
    return images * (np.hypot(rows, columns) < 20)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "Class2D/job004"
    folder.mkdir(parents=True)
    root = "Class2D/job004/run_it020"
    rng = np.random.default_rng(1)
    optics = Table({"optics_group": [1], "micrograph_pixel_size": [1.0], "pixel_size": [PIXEL], "box": [BOX]})
    rows = Table(
        {
            "image_name": [f"{i:06d}@stack.mrcs" for i in range(1, N + 1)],
            "micrograph_name": [f"m{i % 3}.mrc" for i in range(N)],
            "coordinate_x": rng.uniform(0, 4000, N),
            "coordinate_y": rng.uniform(0, 4000, N),
            "optics_group": np.ones(N, dtype=int),
            "class_number": np.repeat(np.arange(1, K + 1), (np.array(SHARES) * N).round().astype(int)),
            "defocus_u": np.linspace(8000.0, 20000.0, N),
        }
    )
    write_dataset(tmp_path / f"{root}_data.star", Dataset("particles", optics, rows))
    write_image(tmp_path / f"{root}_classes.mrcs", averages(), PIXEL)
    model = Table(
        {
            "reference_image": [f"{k:06d}@{root}_classes.mrcs" for k in range(1, K + 1)],
            "class_distribution": np.array(SHARES),
            "estimated_resolution": np.array([12.0, 12.0, 13.0, 13.0, 24.0, 999.0]),
        }
    )
    general = {"rlnReferenceDimensionality": 2, "rlnPixelSize": PIXEL, "rlnNrClasses": K}
    write_tables(tmp_path / f"{root}_model.star", {"model_general": general, "model_classes": model})
    files = {"rlnModelStarFile": f"{root}_model.star", "rlnExperimentalDataStarFile": f"{root}_data.star"}
    write_tables(tmp_path / f"{root}_optimiser.star", {"optimiser_general": {**files, "rlnParticleDiameter": 160.0}})
    return tmp_path


def run(project: Path, **values: object) -> Outputs:
    directory = project / "Select/job005"
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"input": "Class2D/job004/run_it020_data.star", **values}
    outputs = Select().run(
        Select.Parameters(**settings), Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30)
    )
    assert all((project / node).is_file() for node in outputs.nodes)
    return outputs


@pytest.mark.parametrize("file", ["run_it020_data.star", "run_it020_optimiser.star"])
def test_good_classes_are_chosen_with_reasons(project: Path, file: str) -> None:
    outputs = run(project, input=f"Class2D/job004/{file}")
    chosen = read_dataset(project / "Select/job005/particles.star")
    assert set(chosen.rows["class_number"]) == set(GOOD)
    assert len(chosen) == outputs.metrics["n_particles"] == 510
    assert read_table(project / "Select/job005/backup_selection.star")["selected"].tolist() == [1, 1, 1, 1, 0, 0]
    reasons = json.loads((project / "Select/job005/reasons.json").read_text())
    assert {one["class"] for one in reasons if one["kept"]} == set(GOOD)
    assert all(one["reason"] for one in reasons)
    scores = [one["score"] for one in reasons]
    assert scores == sorted(scores, reverse=True)
    assert "4 of 6 classes: 1-4" in outputs.summary


def test_class_averages_are_the_chosen_ones(project: Path) -> None:
    run(project)
    table = read_table(project / "Select/job005/class_averages.star")
    stack, header = read_array(project / "Select/job005/class_averages.mrcs")
    assert header.pixel_size == pytest.approx(PIXEL)
    for place, number in enumerate(table["class_number"]):
        np.testing.assert_allclose(stack[place], averages()[number - 1], atol=1e-6)
        assert table["reference_image"][place] == f"{place + 1:06d}@Select/job005/class_averages.mrcs"


def test_a_list_overrules_the_scores(project: Path) -> None:
    outputs = run(project, classes=[2, 5])
    assert set(read_dataset(project / "Select/job005/particles.star").rows["class_number"]) == {2, 5}
    assert outputs.metrics["n_classes_kept"] == 2
    with pytest.raises(InputError, match="7 is not among classes 1 to 6"):
        run(project, classes=[7])


def test_a_list_needs_no_averages(project: Path) -> None:
    for name in ("model", "optimiser"):
        (project / f"Class2D/job004/run_it020_{name}.star").unlink()
    assert run(project, classes=[1, 3]).metrics["n_particles"] == 300
    with pytest.raises(InputError, match="no class averages to judge"):
        run(project)


@pytest.mark.parametrize("column", ["defocus_u", "rlnDefocusU"])
def test_choice_by_value(project: Path, column: str) -> None:
    run(project, column=column, min_value=9000.0, max_value=10000.0)
    values = read_dataset(project / "Select/job005/particles.star").rows["defocus_u"]
    assert 0 < len(values) < N
    assert values.min() >= 9000.0
    assert values.max() <= 10000.0


def test_choice_by_an_optics_value(project: Path) -> None:
    assert run(project, column="pixel_size", max_value=5.0).metrics["n_particles"] == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"column": "nonsense"}, "has no column nonsense"),
        ({"column": "image_name"}, "holds words"),
        ({"column": "defocus_u", "min_value": 1e9}, "no particle is left"),
        ({"min_score": 1.0}, "no class reaches"),
        ({"input": "missing_data.star"}, "missing_data.star"),
    ],
)
def test_wrong_choices_are_one_clear_line(project: Path, change: dict[str, object], message: str) -> None:
    if "min_score" in change:
        blurred = averages()
        blurred[:4] += np.linspace(-2, 2, BOX)[None, :, None] * np.arange(1, 5)[:, None, None]
        write_image(project / "Class2D/job004/run_it020_classes.mrcs", blurred, PIXEL)
    with pytest.raises(InputError, match=message):
        run(project, **change)


def test_duplicates_go_by_refined_place_and_worth(project: Path) -> None:
    path = project / "Class2D/job004/run_it020_data.star"
    dataset = read_dataset(path)
    x, y = dataset.rows["coordinate_x"].copy(), dataset.rows["coordinate_y"].copy()
    origin = np.zeros(N)
    x[3], y[3] = x[0] + 30.0, y[0]
    origin[3] = 30.0  # the refined place of 3 is that of 0
    worth = np.full(N, 0.5)
    worth[3] = 0.9
    write_dataset(
        path,
        dataset.with_columns(
            coordinate_x=x, coordinate_y=y, origin_x=origin, origin_y=np.zeros(N), max_probability=worth
        ),
    )
    outputs = run(project, classes=list(range(1, K + 1)), duplicate_distance=2.0)
    names = set(read_dataset(project / "Select/job005/particles.star").rows["image_name"])
    assert "000004@stack.mrcs" in names
    assert "000001@stack.mrcs" not in names
    assert "duplicates dropped" in outputs.summary


def test_the_gallery_shows_every_class(project: Path) -> None:
    run(project)
    record = {"parameters": {"input": "Class2D/job004/run_it020_data.star"}}
    (project / "Select/job005/job.yaml").write_text(yaml.safe_dump(record))
    (figure,) = select_figures.figures(project / "Select/job005", project)
    assert figure.png.startswith(b"\x89PNG")
    assert "4 of 6 classes kept" in figure.caption
