"""The directions that --limit_tilt leaves are those in RELION's sampling file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.so3 import grid_eulers, orientation_grid
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.mrc import write_image, write_map
from vitreous.io.relion import read_tables, write_dataset
from vitreous.methods.refinement.orientation_priors import OrientationPriors

pytestmark = [
    pytest.mark.relion,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("relion_refine") is None, reason="relion is not installed"),
]
BOX, PIXEL, N = 16, 6.0, 6


def directions(rot, tilt) -> set[tuple[float, float]]:
    return {(round(float(a) % 360, 2), round(float(b), 2)) for a, b in zip(rot, tilt, strict=True)}


@pytest.mark.parametrize("limit", [40.0, -40.0])
def test_the_same_directions_are_left(limit: float, tmp_path: Path, generator: torch.Generator) -> None:
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    write_map(tmp_path / "map.mrc", Volume(torch.exp(-(x**2 + 2 * y**2 + 3 * z**2) / 20).float(), PIXEL))
    write_image(tmp_path / "particles.mrcs", torch.randn(N, BOX, BOX, generator=generator), PIXEL)
    rows = Table(
        {
            "image_name": np.array([f"{i + 1:06d}@particles.mrcs" for i in range(N)], dtype=object),
            "micrograph_name": np.full(N, "m.mrc", dtype=object),
            "optics_group": np.ones(N, np.int64),
        }
    )
    optics = Table(
        {
            **{"optics_group_name": np.array(["one"], dtype=object), "optics_group": [1], "voltage": [300.0]},
            **{"cs": [2.7], "amplitude_contrast": [0.1], "pixel_size": [PIXEL], "box": [BOX]},
            "image_dimensionality": [2],
        }
    )
    write_dataset(tmp_path / "particles.star", Dataset("particles", optics, rows))
    command = (
        "relion_refine --i particles.star --o out/run --ref map.mrc --ini_high 30 --particle_diameter 80 --K 1 "
        f"--iter 1 --healpix_order 1 --oversampling 0 --limit_tilt {limit:g} --offset_range 1 --offset_step 1 "
        "--zero_mask --sym C1 --random_seed 1 --pool 10 --j 1 --dont_combine_weights_via_disc --dont_check_norm"
    )
    (tmp_path / "out").mkdir()
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = read_tables(tmp_path / "out/run_it001_sampling.star")["sampling_directions"]
    grid = OrientationPriors(limit_tilt=limit).limited(orientation_grid(1))
    rot, tilt, _ = grid_eulers(1, grid.orientations).unbind(1)
    assert directions(rot, tilt) == directions(theirs["rot"], theirs["tilt"])
