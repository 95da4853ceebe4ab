"""Our simulated particles against relion_project on our truth map: same poses, origins, CTF and sign."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.io.mrc import read_image
from vitreous.io.relion import read_dataset
from vitreous.io.stacks import ParticleStack
from vitreous.job import Context, find

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_project") is None, reason="relion is not installed"),
]


def test_simulated_particles_are_relions_projections_of_the_truth(tmp_path: Path) -> None:
    directory = tmp_path / "Simulate/job001"
    directory.mkdir(parents=True)
    job = find("simulate-particles")
    parameters = job.Parameters(
        n_particles=12,
        per_micrograph=4,
        pixel_size=2.5,
        box=96,
        truth_box=96,
        astigmatism=1500.0,
        noise=False,
        damage=False,
        b_factor=0.0,
        focal_spread=0.0,
        convergence=0.0,
        defocus_max=12000.0,
    )
    job().run(parameters, Context(tmp_path, directory, torch.device("cpu"), 1, 1, 10**9))
    command = ["relion_project", "--i", "Simulate/job001/truth.mrc", "--ang", "Simulate/job001/truth_particles.star"]
    done = subprocess.run(
        [*command, "--ctf", "--o", "theirs"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    theirs = read_image(tmp_path / "theirs.mrcs")[0]
    ours = ParticleStack(read_dataset(directory / "particles.star"), tmp_path)[np.arange(12)].numpy()
    found = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, theirs, strict=True)]
    # Theirs wraps what defocus spreads beyond the box, ours cuts it: not quite 1.
    assert min(found) > 0.995
