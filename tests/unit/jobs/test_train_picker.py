"""train-picker and autopick --model on small micrographs of discs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vitreous.app.report.figures import autopick as autopick_figures
from vitreous.app.report.figures import train_picker as figures
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import write_image
from vitreous.io.relion import read_table, write_dataset
from vitreous.job import Context, Job, Outputs
from vitreous.jobs.autopick import Autopick
from vitreous.jobs.train_picker import TrainPicker

PIXEL, SIDE, N = 6.0, 260, 4
NAMES = [f"m{i}.mrc" for i in range(N)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("picker")
    y, x = np.mgrid[:SIDE, :SIDE]
    columns: dict[str, list[object]] = {"coordinate_x": [], "coordinate_y": [], "micrograph_name": []}
    for index, name in enumerate(NAMES):
        rng = np.random.default_rng(index)
        image = rng.normal(100.0, 4.0, (SIDE, SIDE))
        for place in np.stack(np.meshgrid(np.arange(30, 240, 40), np.arange(30, 240, 40)), -1).reshape(-1, 2):
            px, py = place + rng.integers(-5, 6, 2)
            image -= 5.0 * (np.hypot(x - px, y - py) < 10)
            if rng.random() < 0.6:
                for column, value in zip(columns, (float(px), float(py), name), strict=True):
                    columns[column].append(value)
        write_image(folder / name, image.astype(np.float32), PIXEL)
    optics = Table({"optics_group_name": ["a"], "optics_group": [1], "micrograph_pixel_size": [PIXEL]})
    rows = Table({"micrograph_name": NAMES, "optics_group": [1] * N})
    write_dataset(folder / "micrographs.star", Dataset("micrographs", optics, rows))
    picks = Table({**columns, "optics_group": [1] * len(columns["coordinate_x"])})
    write_dataset(folder / "some.star", Dataset("particles", optics, picks))
    return folder


def run(job: type[Job], project: Path, folder: str, *, resume: bool = False, **values: object) -> Outputs:
    directory = project / folder
    directory.mkdir(parents=True, exist_ok=True)
    params = job.Parameters(**values)
    outputs = job().run(params, Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30, resume))
    (directory / "job.yaml").write_text(yaml.safe_dump({"parameters": params.model_dump()}))
    return outputs


def train(project: Path, folder: str, **values: object) -> Outputs:
    given = {"input": "micrographs.star", "coordinates": "some.star", "diameter": 120.0, "epochs": 3, "steps": 15}
    return run(TrainPicker, project, folder, **{**given, **values})


@pytest.mark.slow
def test_a_picker_is_trained_stopped_gone_on_with_and_used(project: Path) -> None:
    whole = train(project, "TrainPicker/job002")
    assert whole.metrics["n_epochs"] == 3
    train(project, "TrainPicker/job003", epochs=1)
    train(project, "TrainPicker/job003", resume=True)
    first, second = (project / f"TrainPicker/job00{n}/picker.pt" for n in (2, 3))
    assert first.read_bytes() == second.read_bytes()
    made = figures.figures(project / "TrainPicker/job002", project)
    assert [one.name for one in made] == ["training", "example"]
    run(Autopick, project, "AutoPick/job004", input="micrographs.star", model="TrainPicker/job002/picker.pt")
    counts = []
    for name in NAMES:
        picks = read_table(project / f"AutoPick/job004/{Path(name).stem}_autopick.star")
        counts.append(picks.n_rows)
        assert (np.diff(picks["pick_score"]) <= 0).all()
    assert 0.8 * 36 * N <= sum(counts) <= 1.1 * 36 * N  # 60% of them were labelled
    drawn = autopick_figures.figures(project / "AutoPick/job004", project)
    assert [one.name for one in drawn] == ["picks", "scores"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "guess"}, "ge-binomial"),
        ({"coordinates": "micrographs.star"}, "lists no coordinate files"),
        ({"diameter": 900.0}, "smaller than two particles|picks in 0 micrographs"),
    ],
)
def test_wrong_settings_are_one_clear_line(project: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(project, "TrainPicker/job009", **change)


def test_autopick_says_what_it_needs(project: Path) -> None:
    with pytest.raises(InputError, match="needs diameter_min"):
        run(Autopick, project, "AutoPick/job008", input="micrographs.star")
    with pytest.raises(InputError, match="both --ref and --model"):
        run(Autopick, project, "AutoPick/job008", input="micrographs.star", ref="a.mrc", model="b.pt")
    with pytest.raises(InputError, match=r"b\.pt: cannot be read"):
        run(Autopick, project, "AutoPick/job008", input="micrographs.star", model="b.pt")
