"""`relion_refine` reads our particle STAR and runs; we read all that it writes; and both find the same classes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import read_dataset, read_tables, write_dataset
from vitreous.job import Context
from vitreous.jobs.class2d import Class2D

pytestmark = [
    pytest.mark.relion,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("relion_refine") is None, reason="relion is not installed"),
]

BOX, N, PIXEL = 32, 80, 4.0


def _shapes() -> torch.Tensor:
    """A bar and a ring of equal power."""
    axis = torch.arange(BOX) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bar = ((y.abs() < 9) & (x.abs() < 3)).float()
    radius = torch.hypot(y.float(), x.float())
    ring = ((radius > 5) & (radius < 9)).float()
    return torch.stack([bar / bar.norm(), ring / ring.norm()]) * 12.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    generator = torch.Generator().manual_seed(2)
    images = _shapes()[torch.arange(N) % 2] + torch.randn(N, BOX, BOX, generator=generator)
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
    rows = Table(
        {
            "image_name": [f"{i + 1:06d}@stack.mrcs" for i in range(N)],
            "micrograph_name": np.full(N, "mic.mrc", dtype=object),
            "optics_group": np.ones(N, np.int64),
        }
    )
    write_dataset(folder / "particles.star", Dataset("particles", optics, rows))
    return folder


@pytest.fixture(scope="module")
def relion(project: Path) -> Path:
    """Five iterations of RELION's 2D classification."""
    (project / "relion").mkdir()
    command = "relion_refine --o relion/run --i particles.star --particle_diameter 100 --K 2 --iter 5 --tau2_fudge 2"
    options = "--psi_step 12 --offset_range 4 --offset_step 2 --oversampling 1 --norm --zero_mask --flatten_solvent"
    done = subprocess.run(
        f"{command} {options} --random_seed 1 --dont_combine_weights_via_disc --pool 10 --j 1".split(),
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return project / "relion"


def test_relion_runs_on_our_particles_and_we_read_what_it_writes(relion: Path) -> None:
    for path in sorted(relion.glob("run_it005_*.star")):
        assert read_tables(path), path
    data = read_dataset(relion / "run_it005_data.star")
    assert data.kind == "particles"
    assert len(data) == N
    assert {"class_number", "psi", "origin_x", "max_probability", "norm_correction"} <= set(data.rows)
    stack, pixel_size = read_image(relion / "run_it005_classes.mrcs")
    assert stack.shape == (2, BOX, BOX)
    assert pixel_size == pytest.approx(PIXEL)


def test_our_files_hold_every_block_that_relions_hold(project: Path, relion: Path) -> None:
    ours = _classify(project)
    for kind in ("model", "sampling", "optimiser"):
        theirs = read_tables(relion / f"run_it005_{kind}.star")
        mine = read_tables(ours / f"run_it005_{kind}.star")
        # noise is kept by optics group from RELION 4 on, by group in 3.1
        wanted = {name for name in theirs if not name.startswith("model_group_") and "pdf_orient" not in name}
        if kind != "optimiser":
            assert wanted <= set(mine), kind
        if kind == "model":
            assert set(theirs["model_classes"]) <= set(mine["model_classes"])
            assert set(theirs["model_class_1"]) - set(mine["model_class_1"]) <= {"rlnSpectralOrientabilityContribution"}


def test_same_classes_and_same_noise(project: Path, relion: Path) -> None:
    ours = _classify(project)
    theirs = read_dataset(relion / "run_it005_data.star").rows["class_number"]
    mine = read_dataset(ours / "run_it005_data.star").rows["class_number"]
    truth = np.arange(N) % 2 + 1
    for classes in (theirs, mine):
        agreement = (classes == truth).mean()
        assert max(agreement, 1 - agreement) > 0.95
    noise = [_noise(folder / "run_it005_model.star") for folder in (relion, ours)]
    ratio = noise[1][2:14] / noise[0][2:14]
    # RELION 3.1 keeps one noise spectrum a group of particles, we one an optics group: here the same particles
    assert np.all(np.abs(np.log(ratio)) < 0.25), ratio


def _classify(project: Path) -> Path:
    directory = project / "Class2D" / "job001"
    if not (directory / "run_it005_optimiser.star").exists():
        directory.mkdir(parents=True)
        context = Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30)
        params = Class2D.Parameters(
            input="particles.star", n_classes=2, iterations=5, ctf=False, particle_diameter=100.0, offset_range=4.0
        )
        Class2D().run(params, context)
    return directory


def _noise(model: Path) -> np.ndarray:
    tables = read_tables(model)
    name = next(name for name in tables if name.startswith(("model_group_", "model_optics_group_")))
    return np.asarray(tables[name]["rlnSigma2Noise"], dtype=np.float64)
