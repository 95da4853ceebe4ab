"""From images of an asymmetric object and nothing else to its map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.app.report.figures.initial_model import figures
from vitreous.core.errors import InputError
from vitreous.core.fourier import to_real
from vitreous.core.rotations import axis_angle_to_matrix, random_rotations
from vitreous.core.so3 import orientation_grid
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_map, write_image
from vitreous.io.relion import read_dataset, read_table, write_dataset
from vitreous.job import Context
from vitreous.jobs.initial_model import InitialModelJob
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients

BOX, PIXEL, N = 32, 6.0, 300


def _object() -> Tensor:
    """Five blobs of different weight in an asymmetric arrangement."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    centres = [(0, 0, 7), (0, 6, -3), (5, -4, -2), (-6, -2, 0), (2, 2, 0)]
    total = torch.zeros(BOX, BOX, BOX, dtype=torch.float64)
    for weight, centre in zip((1.6, 1.2, 1.0, 0.8, 1.0), centres, strict=True):
        total += weight * torch.exp(-(grid - torch.tensor(centre, dtype=torch.float64)).square().sum(-1) / 8.0)
    return total.float()


@pytest.fixture(scope="module")
def project_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    generator = torch.Generator().manual_seed(4)
    coefficients = Coefficients.within(BOX, BOX // 2)
    packed = project(prepare_volume(_object()), random_rotations(N, generator), coefficients.coordinates)
    clean = to_real(coefficients.scatter(packed), (BOX, BOX))
    images = clean + 2.0 * clean.std() * torch.randn(clean.shape, generator=generator)
    write_image(folder / "stack.mrcs", images.numpy(), PIXEL)
    optics = Table(
        {
            "optics_group": [1],
            "optics_group_name": ["one"],
            "voltage": [300.0],
            "cs": [2.7],
            "amplitude_contrast": [0.1],
            "pixel_size": [PIXEL],
            "box": [BOX],
            "image_dimensionality": [2],
        }
    )
    rows = Table({"image_name": [f"{i + 1:06d}@stack.mrcs" for i in range(N)], "optics_group": np.ones(N, np.int64)})
    write_dataset(folder / "particles.star", Dataset("particles", optics, rows))
    return folder


def _run(project_folder: Path, name: str, **options: object) -> Path:
    directory = project_folder / "InitialModel" / name
    directory.mkdir(parents=True)
    context = Context(project_folder, directory, torch.device("cpu"), 1, 3, 1 << 30)
    params = InitialModelJob.Parameters(
        **{"input": "particles.star", "ctf": False, "offset_range": 2.0, "final_resolution": 22.0, **options}
    )
    outputs = InitialModelJob().run(params, context)
    assert outputs.nodes[f"InitialModel/{name}/initial_model.mrc"] == "DensityMap.mrc.relion.initialmodel"
    return directory


def _best_correlation(found: Tensor, truth: Tensor) -> float:
    """Correlation over rotations and both hands, from a few slices to 30 A."""
    generator = torch.Generator().manual_seed(1)
    coordinates = Coefficients.within(BOX, round(BOX * PIXEL / 30.0)).coordinates[1:]
    poses = random_rotations(6, generator)
    target = project(prepare_volume(truth), poses, coordinates)
    best = -1.0
    for hand in (found, torch.roll(found.flip(0), 1, 0)):
        volume = prepare_volume(hand)

        def score(rotations: Tensor, volume: object = volume) -> Tensor:
            turned = (poses @ rotations[:, None]).reshape(-1, 3, 3)
            slices = project(volume, turned, coordinates).reshape(len(rotations), -1)  # type: ignore[arg-type]
            flat = target.reshape(-1)
            return (slices * flat.conj()).real.sum(1) / (slices.norm(dim=1) * flat.norm())

        rotations = orientation_grid(2).rotations()
        for step in (10.0, 5.0, 2.0):
            found_scores = score(rotations)
            best = max(best, float(found_scores.max()))
            turns = axis_angle_to_matrix(
                torch.randn(200, 3, generator=generator, dtype=torch.float64),
                step * torch.rand(200, generator=generator, dtype=torch.float64),
            )
            rotations = turns @ rotations[int(found_scores.argmax())]
    return best


@pytest.mark.slow
def test_map_from_nothing(project_folder: Path) -> None:
    directory = _run(project_folder, "job001", iterations=40, starts=1)
    found = read_map(directory / "initial_model.mrc")
    assert found.voxel_size == pytest.approx(PIXEL)
    assert _best_correlation(found.density, _object()) > 0.9


def test_files_and_symmetry(project_folder: Path) -> None:
    directory = _run(project_folder, "job002", iterations=5, starts=2, symmetry="c2", initial_batch=40, final_batch=60)
    density = read_map(directory / "initial_model.mrc").density
    # C2 about z: (z, y, x) -> (z, -y, -x)
    mate = torch.roll(density.flip(1, 2), (1, 1), (1, 2))
    assert float((density * mate).sum() / density.square().sum()) > 0.98
    best = next(iter(sorted(directory.glob("start*/run_it005_model.star"))))
    assert read_table(best, "model_general")["rlnReferenceDimensionality"][0] == 3
    data = read_dataset(best.with_name("run_it005_data.star"))
    assert len(data) == N
    assert {figure.name for figure in figures(directory, project_folder)} >= {"initial_model"}


def test_two_maps_and_a_resumed_run(project_folder: Path) -> None:
    options = {"iterations": 5, "starts": 1, "n_classes": 2, "initial_batch": 40, "final_batch": 60}
    directory = _run(project_folder, "job003", **options)
    names = ["initial_model.mrc", "initial_model_class002.mrc"]
    before = [read_map(directory / name).density for name in names]
    assert all(bool(torch.isfinite(density).all()) and float(density.abs().max()) > 0 for density in before)
    assert not torch.allclose(before[0], before[1])
    for name in names:
        (directory / name).unlink()
    written = (directory / "start1" / "run_it005_data.star").stat().st_mtime_ns
    context = Context(project_folder, directory, torch.device("cpu"), 1, 3, 1 << 30, resume=True)
    params = InitialModelJob.Parameters(
        input="particles.star", ctf=False, offset_range=2.0, final_resolution=22.0, **options
    )
    InitialModelJob().run(params, context)
    # the run that was finished is not done again
    assert (directory / "start1" / "run_it005_data.star").stat().st_mtime_ns == written
    for name, density in zip(names, before, strict=True):
        assert torch.equal(read_map(directory / name).density, density)


def test_too_few_particles_is_the_users_fault(project_folder: Path) -> None:
    context = Context(project_folder, project_folder, torch.device("cpu"), 1, 1, 1 << 30)
    params = InitialModelJob.Parameters(input="particles.star", n_classes=7, ctf=False)
    with pytest.raises(InputError, match="too few"):
        InitialModelJob().run(params, context)
