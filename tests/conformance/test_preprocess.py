"""Extraction held against RELION's `relion_preprocess` on one synthetic micrograph."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from vitreous.data.table import Table
from vitreous.io.relion import read_dataset, write_dataset, write_tables
from vitreous.job import Context
from vitreous.jobs.extract import Extract
from vitreous.methods.extraction.extract import ExtractionRecipe, extract
from vitreous.methods.extraction.windows import window_centres

PROGRAM = shutil.which("relion_preprocess")
pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(PROGRAM is None, reason="relion_preprocess is not installed (apt-get install relion)"),
]

MICROGRAPHS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
group 1 1.5 300 2.7 0.1


# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
mic.mrc 1 12000 11500 30

"""
# Inside, fractional, over each edge and corner, centre beyond the edge.
POINTS = [(200, 200), (200.6, 180.4), (100.5, 99.5), (20, 220), (2, 150), (200, -5), (390, 320), (410, 30.2), (-40, 90)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preprocess")
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:360, :420]
    micrograph = rng.normal(size=y.shape) * 3 + 50 + 0.02 * x - 0.03 * y
    for px, py in POINTS:
        micrograph -= 4 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 9.0**2))
    mrcfile.write(folder / "mic.mrc", micrograph.astype(np.float32), voxel_size=1.5)
    (folder / "mics.star").write_text(MICROGRAPHS)
    rows = "".join(f"{x} {y}\n" for x, y in POINTS)
    (folder / "mic_pick.star").write_text(f"\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n{rows}\n")
    return folder


def relion(project: Path, name: str, options: str) -> np.ndarray:
    (project / name).mkdir()
    command = f"{PROGRAM} --i mics.star --coord_suffix _pick.star --coord_dir ./ --part_dir {name}/"
    command += f" --part_star {name}/particles.star --extract --extract_size 128 {options}"
    subprocess.run(command.split(), cwd=project, check=True, capture_output=True, timeout=120)
    return np.asarray(mrcfile.read(project / name / "mic.mrcs"))


@pytest.mark.parametrize(
    ("name", "options", "recipe"),
    [
        ("raw", "", ExtractionRecipe(128, 48.0, invert=False, normalise=False)),
        ("scaled", "--scale 64", ExtractionRecipe(128, 48.0, rescale=64, invert=False, normalise=False)),
        ("norm", "--norm --bg_radius 48", ExtractionRecipe(128, 48.0, invert=False)),
        ("level", "--norm --no_ramp --bg_radius 48", ExtractionRecipe(128, 48.0, invert=False, ramp=False)),
        ("usual", "--norm --invert_contrast --scale 48 --bg_radius 18", ExtractionRecipe(128, 48.0, rescale=48)),
    ],
)
def test_images_are_those_of_relion(project: Path, name: str, options: str, recipe: ExtractionRecipe):
    theirs = relion(project, name, options)
    micrograph = torch.from_numpy(np.array(mrcfile.read(project / "mic.mrc")))
    ours = torch.cat(list(extract(micrograph, window_centres(np.array(POINTS)), recipe))).numpy()
    assert ours.shape == theirs.shape
    for a, b in zip(ours.astype(np.float64), theirs.astype(np.float64), strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99999
        assert a.mean() == pytest.approx(b.mean(), abs=1e-4)
        assert a.std() == pytest.approx(b.std(), rel=1e-4)


def extract_job(project: Path, folder: str, **values: object) -> Path:
    directory = project / folder
    directory.mkdir(parents=True)
    settings = {"micrographs": "mics.star", "box": 128, "rescale": 64, **values}
    context = Context(project, directory, torch.device("cpu"), 1, 1, 1 << 30)
    Extract().run(Extract.Parameters(**settings), context)
    return directory


def test_the_job_re_centres_as_relion_does(project: Path):
    """Our particles.star, given origins, extracted again by both: same coordinates, origins and images."""
    listing = Table({"micrograph_name": ["mic.mrc"], "coordinate_file": ["mic_pick.star"]})
    write_tables(project / "picks.star", {"coordinate_files": listing})
    made = read_dataset(extract_job(project, "Extract/job001", coordinates="picks.star") / "particles.star")
    rng = np.random.default_rng(3)
    moved = made.with_columns(origin_x=rng.normal(0, 5, len(made)), origin_y=rng.normal(0, 5, len(made)))
    write_dataset(project / "run_data.star", moved)
    ours = extract_job(project, "Extract/job002", particles="run_data.star", recenter=True)
    (project / "again").mkdir()
    command = f"{PROGRAM} --i mics.star --reextract_data_star run_data.star --recenter --part_dir again/ --norm"
    command += " --part_star again/particles.star --extract --extract_size 128 --scale 64 --bg_radius 24"
    subprocess.run([*command.split(), "--invert_contrast"], cwd=project, check=True, capture_output=True, timeout=120)
    mine, theirs = read_dataset(ours / "particles.star"), read_dataset(project / "again/particles.star")
    for column in ("coordinate_x", "coordinate_y", "origin_x", "origin_y", "defocus_u", "defocus_angle"):
        np.testing.assert_allclose(mine.rows[column], theirs.rows[column], atol=2e-5)
    for column in ("pixel_size", "box", "voltage", "cs"):
        np.testing.assert_allclose(mine.optics[column], theirs.optics[column])
    np.testing.assert_allclose(
        mrcfile.read(ours / "mic.mrcs"), mrcfile.read(project / "again/mic.mrcs"), atol=1e-4, rtol=0
    )


def test_the_job_centres_on_a_point_of_the_reference_as_relion_does(project: Path):
    listing = Table({"micrograph_name": ["mic.mrc"], "coordinate_file": ["mic_pick.star"]})
    write_tables(project / "picks3.star", {"coordinate_files": listing})
    made = read_dataset(extract_job(project, "Extract/job003", coordinates="picks3.star") / "particles.star")
    rng = np.random.default_rng(4)
    angles = {"rot": rng.uniform(-180, 180, len(made)), "tilt": rng.uniform(0, 180, len(made))}
    moved = made.with_columns(
        origin_x=rng.normal(0, 5, len(made)), origin_y=rng.normal(0, 5, len(made)), **angles,
        psi=rng.uniform(-180, 180, len(made)),
    )  # fmt: skip
    write_dataset(project / "run3_data.star", moved)
    point = {"recenter_x": 4.0, "recenter_y": -3.0, "recenter_z": 5.5, "ref_pixel_size": 2.0}
    ours = extract_job(project, "Extract/job004", particles="run3_data.star", recenter=True, **point)
    (project / "point").mkdir()
    command = f"{PROGRAM} --i mics.star --reextract_data_star run3_data.star --recenter --part_dir point/ --norm"
    command += " --recenter_x 4 --recenter_y -3 --recenter_z 5.5 --ref_angpix 2 --part_star point/particles.star"
    command += " --extract --extract_size 128 --scale 64 --bg_radius 24 --invert_contrast"
    subprocess.run(command.split(), cwd=project, check=True, capture_output=True, timeout=120)
    mine, theirs = read_dataset(ours / "particles.star"), read_dataset(project / "point/particles.star")
    for column in ("coordinate_x", "coordinate_y", "origin_x", "origin_y"):
        np.testing.assert_allclose(mine.rows[column], theirs.rows[column], atol=2e-4)
