"""Runs that relion_refine began, gone on with by ours from its _optimiser.star alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.fourier import to_real
from vitreous.core.fsc import fsc
from vitreous.core.rotations import random_rotations
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_image, read_map, write_image, write_map
from vitreous.io.refinement_reading import read_run
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context
from vitreous.jobs.class2d import Class2D
from vitreous.jobs.refine3d import Refine3D
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.sampling import in_plane

pytestmark = [
    pytest.mark.relion,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("relion_refine") is None, reason="relion is not installed"),
]
BOX, PIXEL, N = 32, 4.0, 120
COMMON = (
    "--particle_diameter 100 --offset_range 3 --offset_step 2 --norm --scale --zero_mask "
    "--flatten_solvent --random_seed 1 --dont_combine_weights_via_disc --pool 10 --j 1"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy projections, without CTF, of a heap of blobs; three micrographs; the map beside them."""
    place = tmp_path_factory.mktemp("project")
    generator = torch.Generator().manual_seed(1)
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = (torch.rand(8, 3, generator=generator, dtype=torch.float64) - 0.5) * 14
    density = sum(torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / 4) for c in centres).float()
    k = Coefficients.within(BOX, BOX // 2)
    anywhere = random_rotations(N, generator)
    psi = 360 * torch.rand(N, generator=generator, dtype=torch.float64)
    views = in_plane(psi) @ anywhere[torch.arange(N) % 3]  # three views, turned in their planes
    for name, rotations in (("particles", anywhere), ("views", views)):
        images = to_real(k.scatter(project(prepare_volume(density), rotations, k.coordinates)), (BOX, BOX))
        images = images + 0.5 * images.std() * torch.randn(images.shape, generator=generator)
        write_image(place / f"{name}.mrcs", images, PIXEL)
    write_map(place / "map.mrc", Volume(density, PIXEL))
    optics = Table(
        {
            **{"optics_group_name": np.array(["one"], dtype=object), "optics_group": [1], "voltage": [300.0]},
            **{"cs": [2.7], "amplitude_contrast": [0.1], "pixel_size": [PIXEL], "box": [BOX]},
            "image_dimensionality": [2],
        }
    )
    for name in ("particles", "views"):
        rows = Table(
            {
                "image_name": np.array([f"{i + 1:06d}@{name}.mrcs" for i in range(N)], dtype=object),
                "micrograph_name": np.array([f"m{i // 3 % 3}.mrc" for i in range(N)], dtype=object),
                "optics_group": np.ones(N, np.int64),
            }
        )
        write_dataset(place / f"{name}.star", Dataset("particles", optics, rows))
    return place


def relion(folder: Path, command: str) -> None:
    done = subprocess.run(f"{command} {COMMON}".split(), cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def go_on(folder: Path, job, optimiser: str, name: str, **more) -> Path:
    directory = folder / name
    directory.mkdir(parents=True)
    params = {**job.continued(folder / optimiser, folder), "optimiser": optimiser, **more}
    job().run(job.Parameters(**params), Context(folder, directory, torch.device("cpu"), 1, 1, 1 << 30))
    return directory


def test_2d_classes_go_on(folder: Path) -> None:
    (folder / "two").mkdir()
    relion(folder, "relion_refine --i views.star --o two/run --K 3 --iter 8 --tau2_fudge 2 --psi_step 12")
    run = read_run(folder / "two/run_it006_optimiser.star", folder)
    assert run.iteration == 6
    assert sorted(run.models[0].scale) == ["m0.mrc", "m1.mrc", "m2.mrc"]
    ours = go_on(folder, Class2D, "two/run_it006_optimiser.star", "Class2D/job001", iterations=8)
    assert [p.name for p in sorted(ours.glob("*_model.star"))] == ["run_it007_model.star", "run_it008_model.star"]
    theirs = read_image(folder / "two/run_it008_classes.mrcs")[0]
    mine = read_image(ours / "run_it008_classes.mrcs")[0]
    # the same classes at the same angles: nothing was begun again
    held = [k for k in range(3) if run.models[0].distribution[k] > 0.03]
    assert len(held) >= 2
    for k in held:
        assert np.corrcoef(theirs[k].ravel(), mine[k].ravel())[0, 1] > 0.9
    classes = [read_dataset(d / "run_it008_data.star").rows["class_number"] for d in (folder / "two", ours)]
    assert (classes[0] == classes[1]).mean() > 0.85


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun for relion_refine_mpi")
def test_auto_refinement_goes_on(folder: Path) -> None:
    (folder / "three").mkdir()
    relion(
        folder,
        "mpirun --allow-run-as-root --oversubscribe -n 3 relion_refine_mpi --i particles.star --o three/run "
        "--ref map.mrc --firstiter_cc "
        "--ini_high 30 --auto_refine --split_random_halves --healpix_order 2 --auto_local_healpix_order 4 --sym C1 "
        "--low_resol_join_halves 40 --auto_iter_max 3 --pad 1",
    )
    optimiser = "three/run_it003_optimiser.star"
    ours = go_on(folder, Refine3D, optimiser, "Refine3D/job001", max_iterations=5)
    theirs = read_dataset(folder / "three/run_it003_data.star").rows["half_set"]
    assert np.array_equal(theirs, read_dataset(ours / "run_data.star").rows["half_set"])
    truth = read_map(folder / "map.mrc").density
    before = fsc(read_map(folder / "three/run_it003_half1_class001.mrc").density, truth)
    after = fsc(read_map(ours / "run_class001.mrc").density, truth)
    assert float(after[1:8].mean()) > float(before[1:8].mean()) - 0.01
    scale = float((read_map(ours / "run_class001.mrc").density * truth).sum() / truth.square().sum())
    assert scale == pytest.approx(1.0, abs=0.25)  # RELION's grey values are ours
