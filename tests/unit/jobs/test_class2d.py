from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from vitreous.app.job_command import execute
from vitreous.app.report.figures.class2d import figures
from vitreous.core.ctf import Microscope
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.images import ArraySource
from vitreous.data.table import Table
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import read_dataset, read_table, write_dataset
from vitreous.job import Context
from vitreous.jobs import class2d as job
from vitreous.jobs.class2d import Class2D
from vitreous.methods.refinement.common_grid import CommonGrid, Grid, GroupImages

SCOPE = Microscope(300.0, 2.7, 0.1)
BOX, N = 32, 60


def _shapes() -> torch.Tensor:
    """A bar and a ring."""
    axis = torch.arange(BOX) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bar = ((y.abs() < 9) & (x.abs() < 3)).float()
    radius = torch.hypot(y.float(), x.float())
    ring = ((radius > 5) & (radius < 9)).float()
    return torch.stack([bar, ring])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Sixty noisy particles of two kinds, without CTF."""
    generator = torch.Generator().manual_seed(2)
    kinds = torch.arange(N) % 2
    images = _shapes()[kinds] + 0.7 * torch.randn(N, BOX, BOX, generator=generator)
    write_image(tmp_path / "stack.mrcs", images.numpy(), 4.0)
    optics = Table(
        {
            "optics_group": [1],
            "optics_group_name": ["one"],
            "voltage": [300.0],
            "cs": [2.7],
            "amplitude_contrast": [0.1],
            "pixel_size": [4.0],
            "box": [BOX],
            "image_dimensionality": [2],
        }
    )
    rows = Table({"image_name": [f"{i + 1:06d}@stack.mrcs" for i in range(N)], "optics_group": np.ones(N, np.int64)})
    write_dataset(tmp_path / "particles.star", Dataset("particles", optics, rows))
    return tmp_path


def _run(project: Path, folder: str, iterations: int, *, resume: bool = False, **more: Any) -> Path:
    directory = project / "Class2D" / folder
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(project, directory, torch.device("cpu"), 1, 7, 1 << 30, resume)
    params = Class2D.Parameters(
        input="particles.star", n_classes=2, iterations=iterations, ctf=False, psi_step=30.0, offset_range=2.0, **more
    )
    outputs = Class2D().run(params, context)
    assert outputs.nodes[f"Class2D/{folder}/run_it{iterations:03d}_data.star"] == (
        "ParticleGroupMetadata.star.relion.class2d"
    )
    return directory


def test_two_kinds_are_told_apart_and_written_as_relion_does(project: Path) -> None:
    directory = _run(project, "job001", 8)
    data = read_dataset(directory / "run_it008_data.star")
    classes = data.rows["class_number"]
    agreement = (classes == np.arange(N) % 2 + 1).mean()
    assert max(agreement, 1 - agreement) > 0.9
    table = read_table(directory / "run_it008_model.star", "model_classes")
    np.testing.assert_allclose(table["class_distribution"].sum(), 1.0, rtol=1e-5)
    stack, pixel_size = read_image(directory / "run_it008_classes.mrcs")
    assert stack.shape == (2, BOX, BOX)
    assert pixel_size == pytest.approx(4.0)
    assert table["reference_image"][1] == "000002@Class2D/job001/run_it008_classes.mrcs"
    noise = read_table(directory / "run_it008_model.star", "model_optics_group_1")["rlnSigma2Noise"]
    # RELION's units: half the variance of a pixel over the number of pixels; the mask hides some of the noise
    assert 0.4 < noise[12] / (0.7**2 / 2 / BOX**2) < 1.1
    optimiser = read_table(directory / "run_it008_optimiser.star", "optimiser_general")
    assert optimiser["rlnModelStarFile"][0] == "Class2D/job001/run_it008_model.star"
    assert [figure.name for figure in figures(directory, project)] == ["classes", "course"]


def test_resumed_run_ends_with_the_same_bits(project: Path) -> None:
    whole = _run(project, "job001", 4)
    _run(project, "job002", 2)
    resumed = _run(project, "job002", 4, resume=True)
    a = read_image(whole / "run_it004_classes.mrcs")[0]
    b = read_image(resumed / "run_it004_classes.mrcs")[0]
    np.testing.assert_array_equal(a, b)
    names = ("psi", "origin_x", "class_number", "log_likelihood")
    first, second = (read_dataset(d / "run_it004_data.star").rows for d in (whole, resumed))
    for name in names:
        np.testing.assert_array_equal(first[name], second[name])


def test_mini_batches_are_resumed_from_their_running_sums(project: Path) -> None:
    options = {"mini_batches": True, "initial_batch": 20, "final_batch": 40}
    whole = _run(project, "job001", 23, **options)
    assert [path.name for path in sorted(whole.glob("*_optimiser.star"))] == [
        f"run_it{number:03d}_optimiser.star" for number in (10, 20, 23)
    ]
    (project / "Class2D/job002").mkdir()
    context = Context(project, project / "Class2D/job002", torch.device("cpu"), 1, 7, 1 << 30)
    params = Class2D.Parameters(
        input="particles.star", n_classes=2, iterations=23, ctf=False, psi_step=30.0, offset_range=2.0, **options
    )
    states = job._states(params, *_read_options(params, context), None)
    for state in states:
        if state.iteration == 10:
            job.save_state(context.directory / "checkpoint.npz", state)
            break
    resumed = _run(project, "job002", 23, resume=True, **options)
    a, b = (read_image(folder / "run_it023_classes.mrcs")[0] for folder in (whole, resumed))
    np.testing.assert_array_equal(a, b)


def _read_options(params: Any, context: Context) -> tuple[Any, Any]:
    _, particles = job._read(params, context)
    return particles, job._options(params, context, particles)


def test_too_many_classes_is_the_users_fault(project: Path) -> None:
    context = Context(project, project, torch.device("cpu"), 1, 1, 1 << 30)
    with pytest.raises(InputError, match="too few for 40 classes"):
        Class2D().run(Class2D.Parameters(input="particles.star", n_classes=40, ctf=False), context)


def test_groups_of_other_pixels_and_boxes_are_classified_together(project: Path) -> None:
    """Half of the particles recorded at 5 A in boxes of 26: the same bar and ring, the same two classes."""
    dataset = read_dataset(project / "particles.star")
    images, _ = read_image(project / "stack.mrcs")
    members = np.arange(N)
    coarse = CommonGrid([GroupImages(ArraySource(torch.from_numpy(images), 4.0), members, SCOPE)], Grid(26, 5.0))
    second = members[N // 2 :]
    write_image(project / "coarse.mrcs", coarse[second].numpy(), 5.0)
    names = [f"{i + 1:06d}@stack.mrcs" for i in range(N // 2)] + [f"{i + 1:06d}@coarse.mrcs" for i in range(N - N // 2)]
    optics = dataset.optics.take([0, 0]).with_columns(
        optics_group=[1, 2], optics_group_name=["one", "two"], pixel_size=[4.0, 5.0], box=[BOX, 26]
    )
    rows = dataset.rows.with_columns(image_name=names, optics_group=1 + (members >= N // 2))
    write_dataset(project / "particles.star", Dataset("particles", optics, rows))
    directory = _run(project, "job003", 8)
    data = read_dataset(directory / "run_it008_data.star")
    agreement = (data.rows["class_number"] == members % 2 + 1).mean()
    assert max(agreement, 1 - agreement) > 0.9
    np.testing.assert_array_equal(data.optics["pixel_size"], [4.0, 5.0])
    stack, pixel_size = read_image(directory / "run_it008_classes.mrcs")
    assert stack.shape == (2, BOX, BOX)
    assert pixel_size == pytest.approx(4.0)


def test_a_new_job_goes_on_from_any_iteration(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--continue run_it002_optimiser.star: iterations 3 and 4 again, in a job of their own, from the STAR files."""
    whole = _run(project, "job001", 4, scale_correction=True)
    params = Class2D.continued(whole / "run_it002_optimiser.star", project)
    assert (params["n_classes"], params["psi_step"], params["offset_range"]) == (2, 30.0, 2.0)
    assert params["input"] == "Class2D/job001/run_it002_data.star"
    assert params["scale_correction"]
    assert not params["ctf"]
    monkeypatch.chdir(project)
    write_record(whole)
    execute(Class2D, {"iterations": 4, "seed": 7}, resume="Class2D/job001/run_it002_optimiser.star")
    again = project / "Class2D" / "job002"
    assert sorted(path.name for path in again.glob("*_data.star")) == ["run_it003_data.star", "run_it004_data.star"]
    a, b = (read_image(folder / "run_it004_classes.mrcs")[0] for folder in (whole, again))
    np.testing.assert_allclose(a, b, atol=2e-4 * np.abs(a).max())
    first, second = (read_dataset(folder / "run_it004_data.star").rows for folder in (whole, again))
    np.testing.assert_allclose(first["psi"], second["psi"], atol=1e-4)
    np.testing.assert_array_equal(first["class_number"], second["class_number"])


def write_record(directory: Path) -> None:
    """What the runner leaves beside the results."""
    parameters = {"input": "particles.star", "n_classes": 2, "iterations": 4, "ctf": False, "psi_step": 30.0}
    parameters |= {"offset_range": 2.0, "scale_correction": True}
    (directory / "job.yaml").write_text(yaml.safe_dump({"job": "class2d", "parameters": parameters}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_classes": 3}, "has 2 classes, not 3"),
        ({"optimiser": "particles.star"}, "no block data_optimiser_general"),
        ({"input": "few.star"}, "is of 60 particles, not 20"),
    ],
)
def test_what_cannot_be_continued(project: Path, change: dict[str, Any], message: str) -> None:
    _run(project, "job001", 1)
    dataset = read_dataset(project / "particles.star")
    write_dataset(project / "few.star", dataset.take(np.arange(20)))
    given = {"input": "particles.star", "n_classes": 2, "ctf": False}
    given |= {"optimiser": "Class2D/job001/run_it001_optimiser.star", **change}
    context = Context(project, project, torch.device("cpu"), 1, 7, 1 << 30)
    with pytest.raises(InputError, match=message):
        Class2D().run(Class2D.Parameters(**given), context)
