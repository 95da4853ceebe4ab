"""Projection against relion_project, reconstruction against relion_reconstruct, on the same files."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.fourier import rescale, shell_mean, shift_phases, to_fourier, to_real
from vitreous.core.fsc import fsc
from vitreous.core.masks import soft_sphere
from vitreous.core.rotations import matrix_to_euler, random_rotations
from vitreous.data.dataset import Dataset
from vitreous.data.images import ArraySource
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_image, read_map, write_image, write_map
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context
from vitreous.jobs._external_reconstruct import external_regulariser
from vitreous.jobs.reconstruct import ReconstructJob, ReconstructParameters
from vitreous.kernels.backproject import empty_volume
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.dataset import particle_set
from vitreous.methods.refinement.known_poses import insert_particles
from vitreous.methods.refinement.reconstruct import Reconstruction, complete, shell_weight
from vitreous.methods.refinement.regularise import Evidence, classic

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_project") is None, reason="relion is not installed"),
]
BOX, PIXEL, N = 64, 2.0, 800
MICROSCOPE = Microscope(300.0, 2.7, 0.1)


def density(generator):
    """An asymmetric heap of Gaussian blobs with nothing near the edge."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = (torch.rand(30, 3, generator=generator, dtype=torch.float64) - 0.5) * 28
    return sum(torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * 0.9**2)) for c in centres)


def truth(generator):
    """Poses, origins and CTF of N particles as a table, and the same as tensors."""
    rotations = random_rotations(N, generator)
    rot, tilt, psi = (a.numpy() for a in matrix_to_euler(rotations))
    uniform = torch.rand(4, N, generator=generator, dtype=torch.float64).numpy()
    defocus_v = 8000 + 12000 * uniform[0]
    rows = Table(
        {
            "image_name": np.array([f"{i + 1:06d}@particles.mrcs" for i in range(N)], dtype=object),
            "micrograph_name": np.array(["m.mrc"] * N, dtype=object),
            "rot": rot,
            "tilt": tilt,
            "psi": psi,
            "origin_x": (uniform[1] - 0.5) * 12,
            "origin_y": (uniform[2] - 0.5) * 12,
            "defocus_u": defocus_v + 900,
            "defocus_v": defocus_v,
            "defocus_angle": 180 * uniform[3],
            "phase_shift": np.zeros(N),
            "optics_group": np.ones(N, dtype=np.int64),
            "half_set": np.arange(N) % 2 + 1,
        }
    )
    optics = Table(
        {
            "optics_group_name": np.array(["one"], dtype=object),
            "optics_group": np.array([1]),
            "voltage": np.array([MICROSCOPE.voltage]),
            "cs": np.array([MICROSCOPE.cs]),
            "amplitude_contrast": np.array([MICROSCOPE.amplitude_contrast]),
            "pixel_size": np.array([PIXEL]),
            "box": np.array([BOX]),
            "image_dimensionality": np.array([2]),
        }
    )
    return rotations, Dataset("particles", optics, rows)


def our_projections(volume, rotations, dataset):
    coefficients = Coefficients.within(BOX, BOX // 2)
    slices = project(prepare_volume(volume.to(torch.float32)), rotations, coefficients.coordinates)
    images_ft = coefficients.scatter(slices)
    rows = dataset.rows
    names = ("defocus_u", "defocus_v", "defocus_angle", "phase_shift")
    defocus = Defocus(*(torch.from_numpy(rows[name]) for name in names))
    origins = torch.from_numpy(np.stack([rows["origin_y"], rows["origin_x"]], 1)) / PIXEL
    images_ft = images_ft * ctf((BOX, BOX), PIXEL, MICROSCOPE, defocus) * shift_phases((BOX, BOX), -origins)
    return to_real(images_ft, (BOX, BOX))


def run(command, directory):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_projections_are_relions(tmp_path: Path, generator):
    volume = density(generator)
    rotations, dataset = truth(generator)
    write_map(tmp_path / "map.mrc", Volume(volume.to(torch.float32), PIXEL))
    write_dataset(tmp_path / "particles.star", dataset)
    run(["relion_project", "--i", "map.mrc", "--ang", "particles.star", "--ctf", "--o", "theirs"], tmp_path)
    theirs = torch.from_numpy(read_image(tmp_path / "theirs.mrcs")[0])
    ours = our_projections(volume, rotations, dataset)
    a, b = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (ours, theirs))
    correlation = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    assert float(correlation.min()) >= 0.999
    # RELION's projections are normalised differently, by one factor for all.
    ratio = a.norm(dim=1) / b.norm(dim=1)
    assert float((ratio / ratio.mean() - 1).abs().max()) < 0.02


@pytest.mark.parametrize("iterations", [0, 10])
@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_reconstruction_is_relions(symmetry, iterations, tmp_path: Path, generator):
    volume = density(generator)
    rotations, dataset = truth(generator)
    images = our_projections(volume, rotations, dataset)
    images += 0.3 * images.std() * torch.randn(images.shape, generator=generator)
    write_image(tmp_path / "particles.mrcs", images, PIXEL)
    write_dataset(tmp_path / "particles.star", dataset)
    run(
        ["relion_reconstruct", "--i", "particles.star", "--o", "theirs.mrc", "--ctf", "--sym", symmetry],
        tmp_path,
    )
    directory = tmp_path / "Reconstruct" / "job001"
    context = Context(tmp_path, directory, torch.device("cpu"), 1, 1, 1 << 30)
    ReconstructJob().run(
        ReconstructParameters(input="particles.star", symmetry=symmetry, gridding_iterations=iterations), context
    )
    ours, theirs = read_map(directory / "map.mrc"), read_map(tmp_path / "theirs.mrc")
    curve = fsc(ours.density, theirs.density)
    assert float(curve[1 : int(0.8 * BOX / 2) + 1].min()) >= 0.99
    assert ours.voxel_size == pytest.approx(theirs.voxel_size)


@pytest.mark.parametrize("padding", [1, 2])
def test_relion_makes_our_map_from_our_sums(padding, tmp_path: Path, generator):
    """`relion_external_reconstruct` on the STAR and MRC files of our sums: our map, grey values included."""
    volume = density(generator)
    rotations, dataset = truth(generator)
    images = our_projections(volume, rotations, dataset)
    images += 0.3 * images.std() * torch.randn(images.shape, generator=generator)
    particles = particle_set(dataset, ArraySource(images.to(torch.float32), PIXEL))
    origins = torch.from_numpy(np.stack([dataset.rows["origin_y"], dataset.rows["origin_x"]], 1)) / PIXEL
    into = empty_volume(BOX, padding)
    insert_particles(into, particles, np.arange(N), rotations, origins)
    sums = complete(into)
    sigma2 = 1.0 / shell_weight(sums)
    snr = torch.logspace(3, -0.5, BOX // 2 + 1, dtype=torch.float64)
    how = Reconstruction(tau2_fudge=2.0, gridding_iterations=10)
    evidence = Evidence((sums,), (snr * sigma2,), (sigma2,), snr / (1 + snr), torch.zeros(0), how, 1, whole=True)
    directory = tmp_path / "Refine3D" / "job001"
    directory.mkdir(parents=True)
    context = Context(tmp_path, directory, torch.device("cpu"), 1, 1, 1 << 30)
    theirs = external_regulariser("relion_external_reconstruct", context, PIXEL)(evidence)[0]
    ours = classic(evidence)[0]
    if padding == 1:
        # RELION's map without padding stands on a pedestal that rises towards the edges (FSC with the truth 0.52 in
        # shell 1, ours 0.998); the mask of a refinement takes it off.
        ours, theirs = (one * soft_sphere(BOX, 20.0, ndim=3) for one in (ours, theirs))
    curve = fsc(ours, theirs)
    assert float(curve[: int(0.8 * BOX / 2) + 1].min()) >= 0.99
    assert float((ours * theirs).sum() / ours.square().sum()) == pytest.approx(1.0, abs=0.02)
    low, high = (shell_power(one, 20, 26) for one in (ours, theirs))
    assert low / high == pytest.approx(1.0, abs=0.1)  # the prior damps both alike


def shell_power(volume, first, last):
    return float(shell_mean(to_fourier(volume, 3).abs().square(), BOX, 3)[first:last].sum())


@pytest.mark.parametrize("option", ["phase_flipped", "only_flip_phases", "intact_first_peak", "premultiplied", "own"])
def test_ctf_options_are_relions(option, tmp_path: Path, generator):
    """The same map whichever way the CTF is treated; `own`: each particle's B factor and scale."""
    volume = density(generator)
    rotations, dataset = truth(generator)
    images = our_projections(volume, rotations, dataset)
    images += 0.3 * images.std() * torch.randn(images.shape, generator=generator)
    if option in ("premultiplied", "phase_flipped"):
        names = ("defocus_u", "defocus_v", "defocus_angle", "phase_shift")
        defocus = Defocus(*(torch.from_numpy(dataset.rows[name]) for name in names))
        factor = ctf((BOX, BOX), PIXEL, MICROSCOPE, defocus)
        images = to_real(to_fourier(images) * (factor.sign() if option == "phase_flipped" else factor), (BOX, BOX))
    if option == "premultiplied":
        dataset = replace(dataset, optics=dataset.optics.with_columns(ctf_premultiplied=1))
    if option == "own":
        own = torch.rand(2, N, generator=generator, dtype=torch.float64).numpy()
        dataset = dataset.with_columns(ctf_b_factor=60 * own[0], ctf_scale=0.5 + own[1])
    write_image(tmp_path / "particles.mrcs", images, PIXEL)
    write_dataset(tmp_path / "particles.star", dataset)
    flag = {"phase_flipped": ["--ctf_phase_flipped"], "only_flip_phases": ["--only_flip_phases"]}.get(option, [])
    flag = ["--ctf_intact_first_peak"] if option == "intact_first_peak" else flag
    command = ["relion_reconstruct", "--i", "particles.star", "--o", "theirs.mrc", "--ctf", "--skip_gridding"]
    run([*command, *flag], tmp_path)
    directory = tmp_path / "Reconstruct" / "job001"
    context = Context(tmp_path, directory, torch.device("cpu"), 1, 1, 1 << 30)
    given = {
        "ctf_phase_flipped": option == "phase_flipped",
        "only_flip_phases": option == "only_flip_phases",
        "ctf_intact_first_peak": option == "intact_first_peak",
    }
    ReconstructJob().run(ReconstructParameters(input="particles.star", **given), context)
    ours, theirs = read_map(directory / "map.mrc"), read_map(tmp_path / "theirs.mrc")
    curve = fsc(ours.density, theirs.density)
    assert float(curve[1 : int(0.8 * BOX / 2) + 1].min()) >= 0.99, curve


def test_two_pixel_sizes_make_relions_map(tmp_path: Path, generator):
    """Every second particle at 4 A in half the box: the map that RELION makes, also in its grey values.

    RELION carries values over as they are; we take images to be normalised to unit noise, each in its own pixels, so
    that the coarser ones' values are twice as large for the same specimen.
    """
    volume = density(generator)
    rotations, dataset = truth(generator)
    fine = our_projections(volume, rotations, dataset)
    coarse = rescale(fine, (BOX // 2, BOX // 2))
    second = np.arange(N) % 2
    optics = dataset.optics.take([0, 0]).with_columns(
        optics_group=[1, 2], optics_group_name=["one", "two"], pixel_size=[PIXEL, 2 * PIXEL], box=[BOX, BOX // 2]
    )
    write_image(tmp_path / "fine.mrcs", fine, PIXEL)
    for name, factor in (("theirs", 1.0), ("ours", 2.0)):
        write_image(tmp_path / f"{name}.mrcs", factor * coarse, 2 * PIXEL)
        names = [f"{i + 1:06d}@{name if second[i] else 'fine'}.mrcs" for i in range(N)]
        rows = dataset.rows.with_columns(image_name=np.array(names, dtype=object), optics_group=1 + second)
        write_dataset(tmp_path / f"{name}.star", Dataset("particles", optics, rows))
    run(["relion_reconstruct", "--i", "theirs.star", "--o", "theirs.mrc", "--ctf", "--skip_gridding"], tmp_path)
    directory = tmp_path / "Reconstruct" / "job001"
    context = Context(tmp_path, directory, torch.device("cpu"), 1, 1, 1 << 30)
    ReconstructJob().run(ReconstructParameters(input="ours.star"), context)
    ours, theirs = read_map(directory / "map.mrc"), read_map(tmp_path / "theirs.mrc")
    assert (ours.box, ours.voxel_size) == (theirs.box, pytest.approx(theirs.voxel_size))
    curve = fsc(ours.density, theirs.density)
    assert float(curve[1:14].min()) >= 0.99  # up to the coarse images' Nyquist both halves are in both maps
    assert float(curve[17:26].min()) >= 0.99  # beyond it, the fine ones alone
    single = reconstruct_single(tmp_path, context)
    assert grey(ours.density, volume) == pytest.approx(grey(single, volume), rel=0.02)


def grey(found: torch.Tensor, true: torch.Tensor) -> float:
    """Slope of grey values against the truth's."""
    return float((found * true).sum() / true.square().sum())


def reconstruct_single(project_directory: Path, context: Context) -> torch.Tensor:
    """Our map of the fine images alone."""
    dataset = read_dataset(project_directory / "ours.star")
    alone = dataset.take(dataset.rows["optics_group"] == 1)
    write_dataset(project_directory / "alone.star", alone)
    ReconstructJob().run(ReconstructParameters(input="alone.star"), context)
    return read_map(context.directory / "map.mrc").density
