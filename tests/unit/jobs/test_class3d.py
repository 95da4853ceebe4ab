from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.app.report.figures.class3d import figures
from vitreous.core.errors import InputError
from vitreous.core.fourier import shift_phases, to_real
from vitreous.core.rotations import matrix_to_euler, random_rotations
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map, write_image, write_map
from vitreous.io.relion import read_dataset, read_table, write_dataset, write_tables
from vitreous.job import Context
from vitreous.jobs.class3d import Class3D, Class3DParameters
from vitreous.jobs.select import Select
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients

BOX, PIXEL, N = 24, 4.0, 60


def _map(x: float, width: float) -> torch.Tensor:
    """A bar and a ball beside it: no rotation turns one kind into the other."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    bar = torch.exp(-(grid[..., 0] ** 2 / 40 + grid[..., 1] ** 2 / 6 + grid[..., 2] ** 2 / 4))
    ball = torch.exp(-((grid[..., 2] - x) ** 2 + grid[..., 1] ** 2 + (grid[..., 0] - 3) ** 2) / width)
    return (bar + 1.5 * ball).float()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty noisy particles of two kinds (signal-to-noise ratio 1), without CTF, with and without their poses."""
    root = tmp_path_factory.mktemp("project")
    generator = torch.Generator().manual_seed(5)
    maps = [_map(7.0, 6.0), _map(4.0, 16.0)]
    rotations = random_rotations(N, generator)
    origins = (torch.rand(N, 2, generator=generator, dtype=torch.float64) - 0.5) * 2
    coefficients = Coefficients.within(BOX, BOX // 2)
    packed = torch.zeros(N, len(coefficients), dtype=torch.complex64)
    for kind, one in enumerate(maps):
        packed[kind::2] = project(prepare_volume(one), rotations[kind::2], coefficients.coordinates)
        write_map(root / f"kind{kind + 1}.mrc", Volume(one, PIXEL))
    write_map(root / "mean.mrc", Volume((maps[0] + maps[1]) / 2, PIXEL))
    images = to_real(coefficients.scatter(packed) * shift_phases((BOX, BOX), -origins), (BOX, BOX))
    images = images + images.std() * torch.randn(images.shape, generator=generator)
    write_image(root / "stack.mrcs", images, PIXEL)
    rot, tilt, psi = matrix_to_euler(rotations)
    rows = Table(
        {
            "image_name": [f"{i + 1:06d}@stack.mrcs" for i in range(N)],
            "optics_group": np.ones(N, np.int64),
            "note": np.arange(N) * 1.5,
        }
    )
    optics = Table({"optics_group_name": ["one"], "optics_group": [1], "pixel_size": [PIXEL], "box": [BOX]})
    bare = Dataset("particles", optics, rows)
    write_dataset(root / "particles.star", bare)
    posed = {"rot": rot.numpy(), "tilt": tilt.numpy(), "psi": psi.numpy()}
    posed |= {"origin_x": origins[:, 1].numpy() * PIXEL, "origin_y": origins[:, 0].numpy() * PIXEL}
    write_dataset(root / "posed.star", replace(bare, rows=rows.with_columns(**posed)))
    write_tables(root / "maps.star", {"": Table({"reference_image": ["kind1.mrc", "kind2.mrc"]})})
    return root


def _context(folder: Path, name: str, *, resume: bool = False) -> Context:
    directory = folder / "Class3D" / name
    directory.mkdir(parents=True, exist_ok=True)
    return Context(folder, directory, torch.device("cpu"), 1, 1, 1 << 30, resume)


FIXED = {"input": "posed.star", "reference": ["mean.mrc"], "n_classes": 2, "skip_align": True, "ctf": False}
FIXED |= {"ini_high": 16.0, "iterations": 4, "particle_diameter": 80.0}
ALIGNED = FIXED | {"input": "particles.star", "reference": ["maps.star"], "skip_align": False, "iterations": 2}
ALIGNED |= {"healpix_order": 1, "offset_range": 2.0}


def _agreement(data: Path) -> float:
    classes = read_dataset(data).rows["class_number"]
    same = float((classes == np.arange(N) % 2 + 1).mean())
    return max(same, 1 - same)


def test_classes_alone_files_figures_and_selection(folder: Path) -> None:
    outputs = Class3D().run(Class3DParameters(**FIXED), _context(folder, "job001"))
    directory = folder / "Class3D/job001"
    assert _agreement(directory / "run_it004_data.star") > 0.9
    given, found = (read_dataset(path).rows for path in (folder / "posed.star", directory / "run_it004_data.star"))
    for name in ("note", "rot", "tilt", "psi", "origin_x", "origin_y"):
        np.testing.assert_allclose(found[name], given[name], atol=1e-9)
    classes = read_table(directory / "run_it004_model.star", "model_classes")
    assert list(classes["reference_image"]) == [f"Class3D/job001/run_it004_class00{k}.mrc" for k in (1, 2)]
    assert classes["class_distribution"].sum() == pytest.approx(1.0, abs=1e-6)
    for k in (1, 2):
        density = read_map(directory / f"run_it004_class00{k}.mrc")
        assert (density.box, density.voxel_size) == (BOX, pytest.approx(PIXEL))
    optimiser = read_table(directory / "run_it004_optimiser.star", "optimiser_general").row(0)
    assert (optimiser["rlnDoSkipAlign"], optimiser["rlnCurrentIteration"]) == (1, 4)
    assert all((folder / node).exists() for node in outputs.nodes)
    assert outputs.metrics["n_classes"] == 2
    assert [one.name for one in figures(directory, folder)] == ["classes", "ssnr", "views", "occupancy", "course"]
    # one class, through select
    place = folder / "Select/job002"
    place.mkdir(parents=True)
    context = Context(folder, place, torch.device("cpu"), 1, 1, 1 << 30)
    for source in ("run_it004_optimiser.star", "run_it004_data.star"):
        chosen = Select().run(Select.Parameters(input=f"Class3D/job001/{source}", classes=[2]), context)
        rows = read_dataset(place / "particles.star").rows
        assert set(rows["class_number"]) == {2}
        assert chosen.metrics["n_particles"] == (found["class_number"] == 2).sum()
    for bad, message in (({"classes": [3]}, "not among classes 1 to 2"), ({}, "Give --classes")):
        with pytest.raises(InputError, match=message):
            Select().run(Select.Parameters(input="Class3D/job001/run_it004_optimiser.star", **bad), context)


def test_with_alignment_from_a_list_of_maps(folder: Path) -> None:
    Class3D().run(Class3DParameters(**ALIGNED), _context(folder, "job003"))
    directory = folder / "Class3D/job003"
    assert _agreement(directory / "run_it002_data.star") > 0.8
    views = read_table(directory / "run_it002_model.star", "model_pdf_orient_class_1")["rlnOrientationDistribution"]
    others = read_table(directory / "run_it002_model.star", "model_pdf_orient_class_2")["rlnOrientationDistribution"]
    assert len(views) == 48
    assert views.sum() + others.sum() == pytest.approx(1.0, abs=1e-5)
    # the classes so found are starting maps themselves
    again = ALIGNED | {"reference": ["Class3D/job003/run_it002_model.star"], "iterations": 1, "firstiter_cc": True}
    outputs = Class3D().run(Class3DParameters(**again), _context(folder, "job004"))
    assert outputs.metrics["n_classes"] == 2


def test_a_killed_run_ends_with_the_same_bits(folder: Path) -> None:
    options = ALIGNED | {"iterations": 3, "reference": ["mean.mrc"]}
    Class3D().run(Class3DParameters(**options), _context(folder, "job005"))
    Class3D().run(Class3DParameters(**(options | {"iterations": 1})), _context(folder, "job006"))
    Class3D().run(Class3DParameters(**options), _context(folder, "job006", resume=True))
    whole, resumed = (folder / "Class3D" / job for job in ("job005", "job006"))
    for k in (1, 2):
        name = f"run_it003_class00{k}.mrc"
        assert torch.equal(read_map(whole / name).density, read_map(resumed / name).density)
    rows = [read_dataset(one / "run_it003_data.star").rows for one in (whole, resumed)]
    for name in ("rot", "psi", "origin_x", "class_number", "log_likelihood", "norm_correction"):
        np.testing.assert_array_equal(rows[0][name], rows[1][name])
    # finished: nothing is left to do, and the outputs are the same
    outputs = Class3D().run(Class3DParameters(**options), _context(folder, "job006", resume=True))
    assert all((folder / node).exists() for node in outputs.nodes)


def test_any_iteration_can_be_gone_on_from(folder: Path) -> None:
    options = ALIGNED | {"iterations": 4, "reference": ["mean.mrc"]}
    Class3D().run(Class3DParameters(**options), _context(folder, "job009"))
    whole = folder / "Class3D/job009"
    onward = options | {"reference": [], "input": "Class3D/job009/run_it002_optimiser.star"}
    Class3D().run(Class3DParameters(**onward), _context(folder, "job010"))
    again = folder / "Class3D/job010"
    assert not (again / "run_it002_model.star").exists()
    for k in (1, 2):
        a, b = (read_map(one / f"run_it004_class00{k}.mrc").density for one in (whole, again))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))
    rows = [read_dataset(one / "run_it004_data.star").rows for one in (whole, again)]
    np.testing.assert_array_equal(rows[0]["class_number"], rows[1]["class_number"])
    with pytest.raises(InputError, match="5 classes from 2 maps"):
        Class3D().run(Class3DParameters(**(onward | {"n_classes": 5})), _context(folder, "job011"))
    np.testing.assert_allclose(rows[0]["rot"], rows[1]["rot"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": ["none.mrc"]}, "none.mrc"),
        ({"reference": []}, "--reference.* is needed"),
        ({"input": "none_optimiser.star"}, "none_optimiser.star"),
        ({"reference": ["particles.star"]}, "rlnReferenceImage"),
        ({"symmetry": "Z9"}, "point group"),
        ({"ctf": True}, "defocus"),
        ({"n_classes": 3, "reference": ["maps.star"]}, "3 classes from 2 maps"),
        ({"n_classes": 40}, "too few for 40 classes"),
        ({"input": "particles.star"}, "has no poses, which --skip-align"),
        ({"input": "particles.star", "skip_align": False, "sigma_angle": 5.0}, "has no poses, which --sigma-angle"),
        ({"skip_align": False, "sigma_angle": 5.0, "firstiter_cc": True}, "searches everywhere"),
        ({"particle_diameter": 500.0}, "more than the box"),
    ],
)
def test_what_the_user_can_mend(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Class3D().run(Class3DParameters(**(FIXED | options)), _context(folder, "job007"))


def test_too_little_memory_is_said_at_the_start(folder: Path) -> None:
    context = replace(_context(folder, "job008"), memory=1 << 20)
    with pytest.raises(InputError, match=r"--K.* GB"):
        Class3D().run(Class3DParameters(**FIXED), context)
