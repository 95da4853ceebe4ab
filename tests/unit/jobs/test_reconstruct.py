from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.core.fourier import shift_phases, to_real
from vitreous.core.fsc import fsc
from vitreous.core.rotations import matrix_to_euler, random_rotations
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_map, write_image
from vitreous.io.relion import write_dataset
from vitreous.job import Context
from vitreous.jobs.reconstruct import ReconstructJob, ReconstructParameters
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.dataset import poses_of, with_poses

BOX, PIXEL, N = 32, 3.0, 300


@pytest.fixture
def project_directory(tmp_path, generator):
    """Noise-free projections of a heap of blobs at random poses and origins, no CTF; and the density."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = (torch.rand(12, 3, generator=generator, dtype=torch.float64) - 0.5) * 14
    density = sum(torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / 2.5) for c in centres).float()
    rotations = random_rotations(N, generator)
    origins = (torch.rand(N, 2, generator=generator, dtype=torch.float64) - 0.5) * 4
    coefficients = Coefficients.within(BOX, BOX // 2)
    slices = project(prepare_volume(density), rotations, coefficients.coordinates)
    images_ft = coefficients.scatter(slices) * shift_phases((BOX, BOX), -origins)
    write_image(tmp_path / "particles.mrcs", to_real(images_ft, (BOX, BOX)), PIXEL)
    rot, tilt, psi = (a.numpy() for a in matrix_to_euler(rotations))
    names = np.array([f"{i + 1:06d}@particles.mrcs" for i in range(N)], dtype=object)
    rows = {"image_name": names, "optics_group": np.ones(N, np.int64), "rot": rot, "tilt": tilt, "psi": psi}
    rows |= {"origin_y": origins[:, 0].numpy() * PIXEL, "origin_x": origins[:, 1].numpy() * PIXEL}
    optics = Table({"optics_group": np.array([1]), "pixel_size": np.array([PIXEL])})
    dataset = Dataset("particles", optics, Table(rows))
    write_dataset(tmp_path / "particles.star", dataset)
    return tmp_path, dataset, density


def context(project):
    return Context(project, project / "Reconstruct" / "job001", torch.device("cpu"), 1, 1, 1 << 30)


def test_map_and_halves(project_directory):
    project, _, density = project_directory
    params = ReconstructParameters(input="particles.star", ctf=False, split_halves=True)
    outputs = ReconstructJob().run(params, context(project))
    ours = read_map(project / "Reconstruct/job001/map.mrc")
    assert ours.voxel_size == pytest.approx(PIXEL)
    assert float(fsc(ours.density, density)[1:12].min()) > 0.99
    assert outputs.metrics["n_particles"] == N
    assert float(outputs.metrics["fsc143_resolution_A"]) < 7.0  # Nyquist is 6 A
    assert len(outputs.nodes) == 3


def test_poses_round_trip(project_directory):
    _, dataset, _ = project_directory
    poses = poses_of(dataset, PIXEL)
    again = poses_of(with_poses(dataset, poses, PIXEL), PIXEL)
    assert np.allclose(poses.rotations, again.rotations, atol=1e-6)
    assert np.allclose(poses.origins, again.origins)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ctf": True}, "defocus_u"), ({"ctf": False, "half": 1}, "half_set"), ({"symmetry": "Q7"}, "point group")],
)
def test_what_the_user_can_mend(project_directory, options, message):
    project = project_directory[0]
    with pytest.raises(InputError, match=message):
        ReconstructJob().run(ReconstructParameters(input="particles.star", **options), context(project))


def test_no_angles(project_directory):
    project, dataset, _ = project_directory
    bare = Dataset("particles", dataset.optics, dataset.rows.without("rot", "tilt", "psi"))
    write_dataset(project / "bare.star", bare)
    with pytest.raises(InputError, match="Euler"):
        ReconstructJob().run(ReconstructParameters(input="bare.star"), context(project))
