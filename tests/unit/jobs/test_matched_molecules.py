"""Jobs on matched molecules: refine-template, constrained-search, optimize-template, and make-template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.core.fourier import radius_grid, to_fourier
from vitreous.core.rotations import angular_distance, euler_to_matrix
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.leopard import RESULT_COLUMNS, read_results, write_results
from vitreous.io.mrc import read_map, write_image, write_map
from vitreous.io.relion import read_dataset, read_table, write_dataset
from vitreous.job import Context, Outputs, find
from vitreous.methods.simulation.optics import damage_of_sum

# The search's grid is theta = 0, 36, ..., phi and psi in steps of 36 or so, defocus -200, 0, 200: off it, all of them.
PARTICLES = [(60, 84, (38.0, 71.0, 93.0), 170.0), (70, 150, (182.0, 109.0, 31.0), -180.0)]
OFFSET_PX = (6.0, -4.0, 3.0)
HITS = "hits.csv"


def run(project: Path, name: str, **values: Any) -> Outputs:
    job = find(name)
    directory = project / job.folder / "job001"
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30)
    return job().run(job.Parameters(**values), context)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, molecule: Any, lens: Any) -> Path:
    """A searched micrograph with two molecules."""
    folder = tmp_path_factory.mktemp("matched")
    write_map(folder / "template.mrc", Volume(molecule.volume().float(), lens.pixel_size))
    part = type(molecule)(molecule.atoms - np.array(OFFSET_PX), 64, molecule.sigma)
    write_map(folder / "second.mrc", Volume(part.volume().float(), lens.pixel_size))
    image = molecule.micrograph((150, 210), lens, PARTICLES, snr=10.0)
    write_image(folder / "a.mrc", image, lens.pixel_size)
    optics = {"optics_group": [1], "optics_group_name": ["o"], "voltage": [300.0], "cs": [2.7]}
    optics |= {"amplitude_contrast": [0.07], "micrograph_pixel_size": [lens.pixel_size]}
    rows = {"micrograph_name": ["a.mrc"], "optics_group": [1], "defocus_u": [6000.0]}
    rows |= {"defocus_v": [5800.0], "defocus_angle": [25.0]}
    write_dataset(folder / "mics.star", Dataset("micrographs", Table(optics), Table(rows)))
    angles = np.array([[36.0, 72.0, 90.0], [180.0, 108.0, 30.0], *np.random.default_rng(3).uniform(0, 180, (60, 3))])
    np.savetxt(folder / "angles.txt", angles)
    run(folder, "match-template", micrographs="mics.star", template="template.mrc", angles="angles.txt",
        defocus_range=200.0, defocus_step=200.0, threshold=0.5, min_distance=4.0)  # fmt: skip
    table = read_results(folder / "MatchTemplate/job001/results.csv")
    # So small a search has no background to make z-scores of: the two highest correlations are the molecules.
    order = np.argsort(-table["mip"])
    x = table["pos_x_img"][order]
    highest = table.take(order[[0, int(np.argmax(np.abs(x - x[0]) > 30))]])
    write_results(folder / HITS, dict(highest), extra=("p_value",))
    return folder


def test_both_molecules_are_refined_to_the_truth(project: Path) -> None:
    before = read_results(project / HITS)
    assert before.n_rows == 2
    outputs = run(project, "refine-template", hits=HITS, angle_step=3.0, angle_finest=0.2, defocus_range=100.0)
    folder = project / "RefineTemplate/job001"
    table = read_results(folder / "results.csv")
    assert set(RESULT_COLUMNS) <= set(table) and outputs.metrics["mean_gain"] > 0
    hits = read_dataset(folder / "particles.star")
    for y, x, angles, defocus in PARTICLES:
        row = int(np.argmin(np.hypot(table["refined_pos_y_img"] - y, table["refined_pos_x_img"] - x)))
        assert abs(table["refined_pos_y_img"][row] - y) < 0.3 and abs(table["refined_pos_x_img"][row] - x) < 0.3
        found = euler_to_matrix(*(torch.tensor(table[f"refined_{n}"][row]) for n in ("phi", "theta", "psi")))
        truth = euler_to_matrix(*(torch.tensor(a, dtype=torch.float64) for a in angles))
        assert float(angular_distance(found, truth)) < 1.0  # moves the rim by a quarter of a pixel
        assert abs(table["refined_relative_defocus"][row] - defocus) <= 60.0
        assert table["refined_mip"][row] > table["mip"][row]
        # Leopard-EM 1.3.0 takes the root of a deviation here: scores of match and refine disagree.
        z = (table["refined_mip"] - table["correlation_mean"]) / np.sqrt(table["correlation_variance"])
        np.testing.assert_allclose(table["refined_scaled_mip"], z, rtol=1e-6)
        assert hits.rows["defocus_u"][row] == pytest.approx(6000.0 + table["refined_relative_defocus"][row])


def test_the_second_molecule_is_found_beside_the_first(project: Path, lens: Any) -> None:
    run(project, "refine-template", hits=HITS, angle_step=3.0, angle_finest=0.4)
    offset = [lens.pixel_size * one for one in OFFSET_PX]
    hits = "RefineTemplate/job001/results.csv"
    outputs = run(project, "constrained-search", hits=hits, second="second.mrc", offset=offset)
    table = read_results(project / "ConstrainedSearch/job001/results.csv")
    assert outputs.metrics["n_second"] == table.n_rows == 2
    assert (table["scaled_mip"] > table["threshold"]).all()
    for y, x, angles, _ in PARTICLES:
        pose = euler_to_matrix(*(torch.tensor(a, dtype=torch.float64) for a in angles)).numpy()
        moved = pose @ np.array(OFFSET_PX)
        off = np.hypot(table["pos_y_img"] - y - moved[1], table["pos_x_img"] - x - moved[0])
        assert off.min() < 1.5
    away = run(project, "constrained-search", hits=hits, second="second.mrc", offset=[60.0, 60.0, 0.0])
    assert away.metrics["n_second"] == 0  # nothing there
    with pytest.raises(InputError, match="x,y,z"):
        run(project, "constrained-search", hits=hits, second="second.mrc", offset=[1.0])


def test_the_voxel_size_is_found(project: Path, molecule: Any, lens: Any) -> None:
    """A template drawn 2% too large: its voxels are smaller than the header says."""
    larger = type(molecule)(molecule.atoms * 1.02, molecule.box, molecule.sigma * 1.02)
    write_map(project / "larger.mrc", Volume(larger.volume().float(), lens.pixel_size))
    run(project, "refine-template", hits=HITS, angle_step=3.0, angle_finest=0.2)
    outputs = run(
        project, "optimize-template", hits="RefineTemplate/job001/results.csv", template="larger.mrc",
        pixel_size_range=0.1, pixel_size_step=0.02, b_factor_max=0.0,
    )  # fmt: skip
    assert outputs.metrics["voxel_size_A"] == pytest.approx(lens.pixel_size / 1.02, abs=0.012)
    written = read_map(project / "OptimizeTemplate/job001/template.mrc")
    assert written.voxel_size == pytest.approx(outputs.metrics["voxel_size_A"], rel=1e-5)
    curve = read_table(project / "OptimizeTemplate/job001/optimisation.star", "voxel_size")
    assert len(curve) and np.argmax(curve["mean_correlation"]) not in (0, 10)


PDB = "".join(
    f"HETATM{i:5d}  {e}   UNK A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 {b:5.2f}           {e}\n"
    for i, (e, x, y, z, b) in enumerate(
        [("C", 0, 0, 0, 10), ("O", 8, 3, -2, 10), ("N", -6, 5, 4, 10), ("C", 2, -9, 5, 10)], 1
    )
)


def test_a_template_shares_the_micrographs_damage(tmp_path: Path) -> None:
    (tmp_path / "model.pdb").write_text(PDB + "END\n")
    spectra = []
    for dose in (0.0, 40.0):
        run(tmp_path, "make-template", model="model.pdb", pixel_size=1.0, box=32, dose=dose, pre_exposure=2.0)
        template = read_map(tmp_path / "MakeTemplate/job001/template.mrc")
        assert template.box == 32 and template.voxel_size == pytest.approx(1.0)
        spectra.append(to_fourier(template.density.double(), 3))
    k = radius_grid((32, 32, 32), 1.0)
    some = spectra[0].abs() > 1e-3 * spectra[0].abs().max()
    kept = (spectra[1] / spectra[0])[some].real
    expected = damage_of_sum(k, 2.0, 42.0, 300.0, weighted=True)[some]
    torch.testing.assert_close(kept, expected.to(kept.dtype), atol=2e-3, rtol=0)
    assert float(kept.min()) < 0.3 < 0.9 < float(kept.max())
    with pytest.raises(InputError, match="box"):
        run(tmp_path, "make-template", model="model.pdb", pixel_size=1.0, box=8)


def test_no_molecules_is_said(project: Path) -> None:
    text = (project / HITS).read_text().splitlines()[0]
    (project / "none.csv").write_text(text + "\n")
    with pytest.raises(InputError, match="lists no molecule"):
        run(project, "refine-template", hits="none.csv")
