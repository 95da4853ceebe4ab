from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context
from vitreous.jobs.assign_ctf import AssignCtf, match


def context(project: Path) -> Context:
    directory = project / "AssignCtf/job001"
    directory.mkdir(parents=True)
    return Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30)


def write(project: Path) -> None:
    optics = Table({"optics_group": [1], "voltage": [300.0], "pixel_size": [1.0]})
    names = ["A/job001/b.mrc", "A/job001/a.mrc", "A/job001/b.mrc", "A/job001/gone.mrc"]
    particles = Table({"micrograph_name": names, "defocus_u": [1.0] * 4, "ctf_resolution": [9.0] * 4})
    particles = particles.with_columns(
        optics_group=1, image_name=[f"{n:06d}@s.mrcs" for n in range(1, 5)], other=[1, 2, 3, 4]
    )
    write_dataset(project / "p.star", Dataset("particles", optics, particles))
    micrographs = Table(
        {
            "micrograph_name": ["A/job001/a.mrc", "A/job001/b.mrc"],
            "defocus_u": [11000.0, 12000.0],
            "defocus_v": [10000.0, 11500.0],
            "defocus_angle": [10.0, -20.0],
        }
    ).with_columns(optics_group=1)
    write_dataset(project / "m.star", Dataset("micrographs", optics.without("pixel_size"), micrographs))


def test_particles_get_their_own_micrographs_defocus(tmp_path: Path) -> None:
    write(tmp_path)
    outputs = AssignCtf().run(AssignCtf.Parameters(input="p.star", micrographs="m.star"), context(tmp_path))
    rows = read_dataset(tmp_path / "AssignCtf/job001/particles.star").rows
    assert rows["defocus_u"].tolist() == [12000.0, 11000.0, 12000.0]
    assert rows["defocus_angle"].tolist() == [-20.0, 10.0, -20.0]
    assert rows["other"].tolist() == [1, 2, 3]
    assert "ctf_resolution" not in rows  # it belonged to the old fit
    assert [one.item for one in outputs.quarantined] == ["A/job001/gone.mrc"]
    assert outputs.metrics["n_particles"] == 3


def test_names_match_by_path_then_by_stem() -> None:
    known = np.array(["x/a.mrc", "x/b.mrc", "y/b.mrc"], dtype=object)
    names = np.array(["y/b.mrc", "elsewhere/a.mrc", "elsewhere/b.mrc", "c.mrc"], dtype=object)
    assert match(names, known).tolist() == [2, 0, -1, -1]


def test_micrographs_of_another_project(tmp_path: Path) -> None:
    write(tmp_path)
    other = read_dataset(tmp_path / "m.star").with_columns(micrograph_name=["c.mrc", "d.mrc"])
    write_dataset(tmp_path / "m.star", other)
    with pytest.raises(InputError, match="none of the micrographs"):
        AssignCtf().run(AssignCtf.Parameters(input="p.star", micrographs="m.star"), context(tmp_path))


def test_micrographs_without_ctf(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match="no micrographs with a CTF"):
        AssignCtf().run(AssignCtf.Parameters(input="p.star", micrographs="p.star"), context(tmp_path))
