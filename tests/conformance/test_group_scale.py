"""Scales of groups against relion_refine --scale on the same particles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import write_image
from vitreous.io.relion import read_table, write_dataset
from vitreous.job import Context
from vitreous.jobs.class2d import Class2D

pytestmark = [
    pytest.mark.relion,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("relion_refine") is None, reason="relion is not installed"),
]
BOX, N, PIXEL = 32, 160, 4.0
SCALE = np.array([0.6, 0.9, 1.1, 1.4])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """One blurred arrow in four micrographs of different contrast, without CTF."""
    generator = torch.Generator().manual_seed(2)
    axis = torch.arange(BOX) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    arrow = sum(
        torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 4.5)
        for a, b in ((-8, 0), (-4, 0), (0, 0), (4, 0), (8, 0), (4, 4), (4, -4))
    )
    groups = np.arange(N) % 4
    images = 1.5 * torch.from_numpy(SCALE[groups])[:, None, None] * arrow
    images = images + torch.randn(N, BOX, BOX, generator=generator)
    write_image(tmp_path / "stack.mrcs", images.numpy(), PIXEL)
    optics = Table(
        {
            **{"optics_group": [1], "optics_group_name": ["one"], "voltage": [300.0], "cs": [2.7]},
            **{"amplitude_contrast": [0.1], "pixel_size": [PIXEL], "box": [BOX], "image_dimensionality": [2]},
        }
    )
    rows = Table(
        {
            "image_name": [f"{i + 1:06d}@stack.mrcs" for i in range(N)],
            "micrograph_name": np.array([f"mic{group}.mrc" for group in groups], dtype=object),
            "optics_group": np.ones(N, np.int64),
        }
    )
    write_dataset(tmp_path / "particles.star", Dataset("particles", optics, rows))
    return tmp_path


def test_scales_are_relions(project: Path) -> None:
    (project / "relion").mkdir()
    command = "relion_refine --o relion/run --i particles.star --particle_diameter 100 --K 1 --iter 5 --tau2_fudge 2"
    options = "--psi_step 12 --offset_range 4 --offset_step 2 --scale --norm --zero_mask --flatten_solvent --pool 10"
    done = subprocess.run(
        f"{command} {options} --random_seed 1 --j 1".split(), cwd=project, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    directory = project / "Class2D" / "job001"
    directory.mkdir(parents=True)
    params = Class2D.Parameters(
        input="particles.star", n_classes=1, iterations=5, ctf=False, particle_diameter=100.0, offset_range=4.0,
        scale_correction=True,
    )  # fmt: skip
    Class2D().run(params, Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30))
    tables = [read_table(folder / "run_it005_model.star", "model_groups") for folder in (project / "relion", directory)]
    theirs, ours = (np.asarray(table["rlnGroupScaleCorrection"], dtype=float) for table in tables)
    assert [int(n) for n in tables[1]["rlnGroupNrParticles"]] == [N // 4] * 4
    np.testing.assert_allclose(ours, SCALE / SCALE.mean(), rtol=0.1)
    np.testing.assert_allclose(ours, theirs / theirs.mean(), rtol=0.1)
