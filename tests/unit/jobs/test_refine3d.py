from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.app.report.figures import refine3d as pictures
from vitreous.core.errors import InputError
from vitreous.core.fourier import shift_phases, to_real
from vitreous.core.fsc import fsc
from vitreous.core.masks import soft_sphere
from vitreous.core.rotations import euler_to_matrix, matrix_to_euler, random_rotations
from vitreous.core.symmetry import symmetric_distance, symmetry_matrices
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map, write_image, write_map
from vitreous.io.relion import read_dataset, read_table, write_dataset
from vitreous.job import Context
from vitreous.jobs.refine3d import Refine3D, Refine3DParameters
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.maps.half_map_fsc import half_map_fsc
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.initial_reference import fit_reference, resize

BOX, PIXEL, N = 24, 4.0, 60


@pytest.fixture
def particles(tmp_path, generator):
    """Noisy projections, without CTF, of a D2 heap of blobs; the map beside them in another box and voxel size."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = (torch.rand(4, 3, generator=generator, dtype=torch.float64) - 0.5) * 11
    centres = (centres[:, None, None] @ symmetry_matrices("D2")).reshape(-1, 3)
    density = sum(torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / 3.0) for c in centres).float()
    rotations = random_rotations(N, generator)
    origins = (torch.rand(N, 2, generator=generator, dtype=torch.float64) - 0.5) * 3
    coefficients = Coefficients.within(BOX, BOX // 2)
    slices = coefficients.scatter(project(prepare_volume(density), rotations, coefficients.coordinates))
    images = to_real(slices * shift_phases((BOX, BOX), -origins), (BOX, BOX))
    images = images + 0.3 * images.std() * torch.randn(images.shape, generator=generator)
    write_image(tmp_path / "particles.mrcs", images, PIXEL)
    names = np.array([f"{i + 1:06d}@particles.mrcs" for i in range(N)], dtype=object)
    rows = Table({"image_name": names, "optics_group": np.ones(N, np.int64), "note": np.arange(N) * 1.5})
    optics = Table(
        {
            "optics_group_name": np.array(["one"], dtype=object),
            "optics_group": np.array([1]),
            "pixel_size": np.array([PIXEL]),
            "box": np.array([BOX]),
        }
    )
    write_dataset(tmp_path / "particles.star", Dataset("particles", optics, rows))
    write_map(tmp_path / "map.mrc", Volume(resize(density, 28), PIXEL))
    rot, tilt, psi = (angle.numpy() for angle in matrix_to_euler(rotations))
    posed = {"rot": rot, "tilt": tilt, "psi": psi, "tilt_prior": tilt, "psi_prior": psi}
    write_dataset(tmp_path / "posed.star", Dataset("particles", optics, rows.with_columns(**posed)))
    write_map(tmp_path / "truth.mrc", Volume(density, PIXEL))
    return tmp_path, density


def context(project, resume=False):
    directory = project / "Refine3D" / "job001"
    directory.mkdir(parents=True, exist_ok=True)
    return Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30, resume)


OPTIONS = {"input": "particles.star", "reference": "map.mrc", "symmetry": "D2", "ctf": False, "healpix_order": 1}
OPTIONS |= {"ini_high": 30.0, "offset_range": 2.0, "max_iterations": 3}


def test_files_metrics_figures_and_resume(particles):
    project = particles[0]
    outputs = Refine3D().run(Refine3DParameters(**OPTIONS), context(project))
    directory = project / "Refine3D/job001"
    for name in ("run_class001.mrc", "run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc"):
        assert read_map(directory / name).box == BOX
    for kind in ("data", "model", "optimiser", "sampling"):
        assert (directory / f"run_{kind}.star").exists()
    last = outputs.metrics["n_iterations"]
    for half in (1, 2):
        assert (directory / f"run_it{last:03d}_half{half}_model.star").exists()
        assert (directory / f"run_it{last:03d}_half{half}_class001.mrc").exists()
    rows = read_dataset(directory / "run_data.star").rows
    assert set(rows["half_set"]) == {1, 2}
    assert np.array_equal(rows["note"], np.arange(N) * 1.5)  # what the user's file holds is kept
    curve = read_table(directory / "run_model.star", "model_class_1")
    assert curve["gold_standard_fsc"][1] > 0.9
    assert float(outputs.metrics["fsc143_resolution_A"]) < 16.0
    assert len(pictures.figures(directory, project)) == 4
    assert all((project / node).exists() for node in outputs.nodes)
    # Killed after its last iteration, before the final files: the same map again.
    final = read_map(directory / "run_class001.mrc").density
    (directory / "run_class001.mrc").unlink()
    Refine3D().run(Refine3DParameters(**OPTIONS), context(project, resume=True))
    assert torch.equal(read_map(directory / "run_class001.mrc").density, final)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "none.mrc"}, "none.mrc"),
        ({"symmetry": "Z9"}, "point group"),
        ({"ctf": True}, "defocus"),
        ({"particle_diameter": 500.0}, "more than the box"),
        ({"solvent_correct_fsc": True}, "needs a mask"),
        ({"healpix_order": 6}, "local searches"),
        ({"regularise": "adaptive", "external_reconstruct": True}, "excludes --regularise adaptive"),
        ({"sigma_ang": 5.0}, "needs particles with Euler angles"),
        ({"sigma_tilt": 5.0}, "tilt_prior"),
        ({"relax_symmetry": "C2"}, "goes with --sym C1"),
    ],
)
def test_what_the_user_can_mend(particles, options, message):
    with pytest.raises(InputError, match=message):
        Refine3D().run(Refine3DParameters(**{**OPTIONS, **options}), context(particles[0]))


def test_solvent_corrected_fsc_drives_prior_and_resolution(particles):
    """The curve in the files is that of the half-maps in the mask, phase-randomised; tau2 and resolution are its."""
    project = particles[0]
    mask = soft_sphere(BOX, 7.0, edge=3.0, ndim=3)
    write_map(project / "mask.mrc", Volume(mask, PIXEL))
    options = {**OPTIONS, "mask": "mask.mrc", "solvent_correct_fsc": True, "max_iterations": 2}
    outputs = Refine3D().run(Refine3DParameters(**options), context(project))
    directory = project / "Refine3D/job001"
    halves = [read_map(directory / f"run_half{half}_class001_unfil.mrc").density for half in (1, 2)]
    expected = half_map_fsc(*halves, PIXEL, mask)
    curves = read_table(directory / "run_it002_half1_model.star", "model_class_1")
    shells = slice(1, BOX // 2)
    assert np.allclose(curves["gold_standard_fsc"][shells], expected.corrected[shells], atol=1e-4)
    assert float((expected.corrected - expected.unmasked)[shells].abs().max()) > 0.01  # else the mask changes nothing
    assert outputs.metrics["fsc143_resolution_A"] == pytest.approx(expected.resolution(), abs=1e-3)
    bounded = np.clip(curves["gold_standard_fsc"][shells], 0.001, 0.999)
    snr = curves["rlnReferenceTau2"][shells] / curves["rlnReferenceSigma2"][shells]
    assert np.allclose(snr, bounded / (1 - bounded), rtol=1e-3)


def test_references_of_another_program(particles):
    """Its answer, masked, is what the next iteration compares with; the joined map is asked for at the end."""
    project, density = particles
    write_map(project / "answer.mrc", Volume(density, PIXEL))
    script = project / "program.sh"
    script.write_text("#!/bin/sh\ncp answer.mrc $(awk '/rlnExtReconsResult / {print $2}' $1)\n")
    script.chmod(0o755)
    options = {**OPTIONS, "external_reconstruct": True, "external_reconstruct_exe": str(script), "max_iterations": 2}
    Refine3D().run(Refine3DParameters(**options), context(project))
    directory = project / "Refine3D/job001"
    mask = soft_sphere(BOX, BOX / 2 - 5, ndim=3)
    for name in ("run_it001_half1_class001.mrc", "run_it001_half2_class001.mrc", "run_class001.mrc"):
        assert torch.allclose(read_map(directory / name).density, density * mask, atol=1e-6)
    assert (directory / "run_it001_half2_class001_external_reconstruct.star").exists()
    assert (directory / "run_it002_class001_external_reconstruct.star").exists()
    # the half-maps that decide on the resolution are made by ourselves
    assert not torch.equal(read_map(directory / "run_half1_class001_unfil.mrc").density, density)


def test_adaptive_prior_makes_the_references(particles):
    """The same map where there is signal, other values; what it is good for is tested where it is defined."""
    project = particles[0]
    references = []
    for kind in ("classic", "adaptive"):
        Refine3D().run(Refine3DParameters(**{**OPTIONS, "regularise": kind, "max_iterations": 1}), context(project))
        references.append(read_map(project / "Refine3D/job001/run_it001_half1_class001.mrc").density)
    classic, adaptive = references
    assert float((adaptive - classic).norm() / classic.norm()) > 0.01
    assert float(fsc(adaptive, classic)[1:5].min()) > 0.9


def test_memory_plan_is_said_and_what_cannot_fit_is_refused(particles, caplog):
    project = particles[0]
    caplog.set_level("INFO")
    Refine3D().run(Refine3DParameters(**{**OPTIONS, "max_iterations": 1}), context(project))
    assert "final iteration (box 24, padding 2, to Nyquist)" in caplog.text
    little = replace(context(project), memory=1 << 27)
    with pytest.raises(InputError, match=r"final iteration needs 0\.\d GB.*0\.1 to plan with.*--pad 1") as raised:
        Refine3D().run(Refine3DParameters(**OPTIONS), little)
    assert "\n" not in str(raised.value)


def test_halves_that_come_with_the_particles_are_kept(particles):
    project = particles[0]
    dataset = read_dataset(project / "particles.star")
    given = np.where(np.arange(N) < N // 3, 1, 2)
    write_dataset(project / "halves.star", replace(dataset, rows=dataset.rows.with_columns(half_set=given)))
    options = {**OPTIONS, "input": "halves.star", "max_iterations": 1}
    Refine3D().run(Refine3DParameters(**options), context(project))
    assert np.array_equal(read_dataset(project / "Refine3D/job001/run_data.star").rows["half_set"], given)


@pytest.mark.parametrize(
    ("search", "symmetry", "reach"),
    [
        ({"sigma_ang": 4.0, "healpix_order": 3}, "D2", 18.0),
        ({"sigma_ang": 4.0, "healpix_order": 3, "symmetry": "C1", "relax_symmetry": "D2"}, "D2", 18.0),
        ({"sigma_tilt": 8.0, "sigma_psi": 8.0}, "D2", None),
    ],
)
def test_searches_stay_where_they_are_told_to(particles, search, symmetry, reach):
    """Near the angles given (or their mates), or with tilt and psi near their priors."""
    project = particles[0]
    options = {**OPTIONS, "input": "posed.star", "reference": "truth.mrc", "max_iterations": 1, **search}
    Refine3D().run(Refine3DParameters(**options), context(project))
    columns = ("rot", "tilt", "psi")
    given, found = (
        [torch.from_numpy(read_dataset(path).rows[name]) for name in columns]
        for path in (project / "posed.star", project / "Refine3D/job001/run_data.star")
    )
    if reach is not None:
        away = symmetric_distance(euler_to_matrix(*given), euler_to_matrix(*found), symmetry)
        assert float(away.max()) < reach
        assert float(away.median()) < 6.0
    else:
        mates = euler_to_matrix(*found)[:, None] @ symmetry_matrices(symmetry)
        _, tilt, psi = matrix_to_euler(mates)
        off = torch.stack([tilt - given[1][:, None], torch.remainder(psi - given[2][:, None] + 180, 360) - 180])
        # within three deviations, but for the half step of the finer grid and the grid's perturbation
        assert float(off.abs().amax(0).amin(1).quantile(0.9)) < 24.0 + 15.0


def test_a_new_job_goes_on_from_an_iteration(particles):
    """From the STAR files and maps of iteration 2 to much the same end; a converged run has no more to do."""
    project = particles[0]
    whole = context(project)
    Refine3D().run(Refine3DParameters(**OPTIONS), whole)
    directory = project / "Refine3D/job001"
    given = Refine3D.continued(directory / "run_it002_optimiser.star", project)
    assert given["symmetry"] == "D2"
    assert given["reference"] == "Refine3D/job001/run_it002_half1_class001.mrc"
    again = Context(project, project / "Refine3D/job002", torch.device("cpu"), 1, 1, 1 << 30)
    again.directory.mkdir()
    options = {**given, "optimiser": "Refine3D/job001/run_it002_optimiser.star", "max_iterations": 3}
    Refine3D().run(Refine3DParameters(**options), again)
    assert not (again.directory / "run_it002_data.star").exists()
    first, second = (read_map(folder / "run_class001.mrc").density for folder in (directory, again.directory))
    assert float(fsc(first, second)[1:7].min()) > 0.95
    halves = [read_dataset(folder / "run_data.star").rows["half_set"] for folder in (directory, again.directory)]
    assert np.array_equal(*halves)
    ended = {**options, "optimiser": "Refine3D/job001/run_it003_optimiser.star"}
    with pytest.raises(InputError, match="has converged"):
        Refine3D().run(Refine3DParameters(**ended), again)


def test_reference_is_resampled_and_centred(generator):
    axis = torch.arange(40, dtype=torch.float64) - 20
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    blob = torch.exp(-((x - 4) ** 2 + y**2 + (z + 6) ** 2) / 18.0).float()
    ours = fit_reference(Volume(blob, 2.0), 24, 4.0)  # 40 voxels of 2 A to 24 of 4 A: the centre stays
    half = torch.arange(24, dtype=torch.float64) - 12
    z, y, x = torch.meshgrid(half, half, half, indexing="ij")
    truth = torch.exp(-((x - 2) ** 2 + y**2 + (z + 3) ** 2) / 4.5).float()
    assert torch.allclose(ours, truth, atol=0.02)
    assert torch.equal(fit_reference(Volume(blob, 2.0), 40, 2.0), blob)
