"""relion_refine goes on from our 3D classification, we read its, and both sort a mixed set alike."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope
from vitreous.core.fourier import to_real
from vitreous.core.rotations import random_rotations
from vitreous.data.dataset import Dataset
from vitreous.data.images import ArraySource
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.mrc import read_map, write_image, write_map
from vitreous.io.relion import read_dataset, read_table, read_tables, write_dataset, write_tables
from vitreous.job import Context
from vitreous.jobs.class3d import Class3D
from vitreous.kernels.project import prepare_volume, project
from vitreous.methods.refinement.coefficients import Coefficients
from vitreous.methods.refinement.particles import ParticleSet

pytestmark = [
    pytest.mark.relion,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("relion_refine") is None, reason="relion is not installed"),
]

BOX, N, PIXEL, DIAMETER = 32, 120, 4.0, 96.0


def _maps() -> list[torch.Tensor]:
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)

    def blob(centre: tuple[float, float, float]) -> torch.Tensor:
        return torch.exp(-(grid - torch.tensor(centre, dtype=torch.float64)).square().sum(-1) / 8.0)

    core = blob((0, 0, 5)) + 1.3 * blob((0, 5, -2)) + blob((4, -4, 0)) + blob((-4, -1, -4))
    return [(core + 1.5 * blob(place)).float() for place in ((7, 2, -5), (-7, 5, 2))]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 particles of two kinds in turn with CTF, signal-to-noise ratio 1/4 in the box; three iterations of ours."""
    folder = tmp_path_factory.mktemp("project")
    generator = torch.Generator().manual_seed(2)
    u = 8000 + 10000 * torch.rand(N, generator=generator, dtype=torch.float64)
    defocus = Defocus(u, u - 300, torch.full_like(u, 20.0), torch.zeros_like(u))
    blank = ArraySource(torch.zeros(N, BOX, BOX), PIXEL)
    particles = ParticleSet(blank, np.zeros(N, np.int64), (Microscope(300.0, 2.7, 0.1),), defocus)
    coefficients = Coefficients.within(BOX, BOX // 2)
    packed = torch.zeros(N, len(coefficients), dtype=torch.complex64)
    rotations = random_rotations(N, generator)
    for kind, one in enumerate(_maps()):
        packed[kind::2] = project(prepare_volume(one), rotations[kind::2], coefficients.coordinates)
        write_map(folder / f"kind{kind + 1}.mrc", Volume(one, PIXEL))
    images = to_real(coefficients.scatter(packed * particles.ctf(np.arange(N), coefficients)), (BOX, BOX)).float()
    noise = 2.0 * images.std()
    images = (images + noise * torch.randn(images.shape, generator=generator)) / noise
    write_image(folder / "stack.mrcs", images.numpy(), PIXEL)
    optics = {"optics_group": [1], "optics_group_name": ["one"], "voltage": [300.0], "cs": [2.7]}
    optics |= {"amplitude_contrast": [0.1], "pixel_size": [PIXEL], "box": [BOX], "image_dimensionality": [2]}
    rows = {
        "image_name": [f"{i + 1:06d}@stack.mrcs" for i in range(N)],
        "micrograph_name": [f"mic{i % 3}.mrc" for i in range(N)],
        "optics_group": np.ones(N, np.int64),
        "defocus_u": u.numpy(),
        "defocus_v": (u - 300).numpy(),
        "defocus_angle": np.full(N, 20.0),
    }
    write_dataset(folder / "particles.star", Dataset("particles", Table(optics), Table(rows)))
    write_tables(folder / "maps.star", {"": Table({"reference_image": ["kind1.mrc", "kind2.mrc"]})})
    _classify(folder, "job001", iterations=3)
    return folder


def _classify(folder: Path, name: str, **more: object) -> Path:
    directory = folder / "Class3D" / name
    directory.mkdir(parents=True)
    options = {"input": "particles.star", "reference": ["maps.star"], "ini_high": 24.0, "healpix_order": 1}
    options |= {"offset_range": 2.0, "particle_diameter": DIAMETER, "firstiter_cc": True, **more}
    context = Context(folder, directory, torch.device("cpu"), 1, 1, 1 << 30)
    Class3D().run(Class3D.Parameters(**options), context)
    return directory


def _relion(folder: Path, words: str) -> None:
    done = subprocess.run(
        ["relion_refine", *words.split()], cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]


def _agreement(data: Path) -> float:
    rows = read_dataset(data).rows
    truth = np.array([(int(name.partition("@")[0]) - 1) % 2 + 1 for name in rows["image_name"]])
    return float((rows["class_number"] == truth).mean())


def test_relion_goes_on_from_our_files(root: Path) -> None:
    (root / "on").mkdir()
    _relion(root, "--continue Class3D/job001/run_it003_optimiser.star --o on/run --iter 4 --j 1 --pool 10")
    ours, theirs = root / "Class3D/job001/run_it003", root / "on/run_it004"
    before = read_table(Path(f"{ours}_model.star"), "model_general").row(0)
    after = read_table(Path(f"{theirs}_model.star"), "model_general").row(0)
    assert after["rlnNrClasses"] == 2
    # nothing jumps: the same noise, resolution (to a shell) and origins, so scales and units were understood
    noise = [read_table(Path(f"{one}_model.star"), "model_group_1")["rlnSigma2Noise"] for one in (ours, theirs)]
    assert np.all(np.abs(np.log(noise[1][2:14] / noise[0][2:14])) < 0.15), noise[1] / noise[0]
    shells = [BOX * PIXEL / float(one["rlnCurrentResolution"]) for one in (before, after)]
    assert abs(shells[0] - shells[1]) <= 1.01
    assert after["rlnSigmaOffsetsAngst"] == pytest.approx(before["rlnSigmaOffsetsAngst"], rel=0.3)
    changes = read_table(Path(f"{theirs}_optimiser.star"), "optimiser_general").row(0)
    assert changes["rlnChangesOptimalClasses"] < 0.25
    for k in (1, 2):
        a, b = (read_map(Path(f"{one}_class00{k}.mrc")).density for one in (ours, theirs))
        assert float((a * b).sum() / (a.norm() * b.norm())) > 0.9
        assert float(a.norm() / b.norm()) == pytest.approx(1.0, abs=0.25)


def test_both_sort_the_same_set_as_well(root: Path) -> None:
    (root / "relion").mkdir()
    options = f"--i particles.star --ref maps.star --K 2 --iter 3 --ini_high 24 --particle_diameter {DIAMETER:g} --ctf"
    options += " --firstiter_cc --tau2_fudge 4 --flatten_solvent --zero_mask --oversampling 1 --healpix_order 1"
    options += " --offset_range 2 --offset_step 2 --sym C1 --norm --pad 2 --random_seed 1 --skip_gridding"
    _relion(root, f"{options} --o relion/run --j 1 --pool 10 --dont_combine_weights_via_disc --dont_check_norm")
    theirs, ours = root / "relion/run_it003", root / "Class3D/job001/run_it003"
    assert _agreement(Path(f"{ours}_data.star")) >= _agreement(Path(f"{theirs}_data.star")) - 0.05
    models = [read_tables(Path(f"{one}_model.star")) for one in (ours, theirs)]
    for k in (1, 2):
        # signal-to-noise ratios where they mean something: same statistics, same prior
        ssnr = [model[f"model_class_{k}"]["rlnSsnrMap"][1:5] for model in models]
        assert np.all(np.abs(np.log(ssnr[0] / ssnr[1])) < 1.0), ssnr
    assert set(models[1]) - set(models[0]) <= {f"model_group_{i}" for i in range(2, 10)}
    _goes_on_from_theirs(root)


def _goes_on_from_theirs(root: Path) -> None:
    """Our iteration from RELION's files is what RELION makes of them."""
    words = "--continue relion/run_it003_optimiser.star --o relion/run --iter 4 --j 1 --pool 10"
    _relion(root, words)
    given = {"input": "relion/run_it003_optimiser.star", "reference": [], "firstiter_cc": False, "iterations": 4}
    ours, theirs = _classify(root, "job002", **given) / "run_it004", root / "relion/run_it004"
    models = [read_tables(Path(f"{one}_model.star")) for one in (ours, theirs)]
    noise = models[0]["model_group_1"]["rlnSigma2Noise"] / models[1]["model_group_1"]["rlnSigma2Noise"]
    assert np.all(np.abs(np.log(noise[2:14])) < 0.4), noise  # theirs of one micrograph, ours of all three
    rows = [read_dataset(Path(f"{one}_data.star")).rows for one in (ours, theirs)]
    by_name = dict(zip(rows[1]["image_name"], rows[1]["class_number"], strict=True))
    same = np.mean([by_name[n] == c for n, c in zip(rows[0]["image_name"], rows[0]["class_number"], strict=True)])
    assert same > 0.8
    for k in (1, 2):
        a, b = (read_map(Path(f"{one}_class00{k}.mrc")).density for one in (ours, theirs))
        assert float((a * b).sum() / (a.norm() * b.norm())) > 0.9
        assert float(a.norm() / b.norm()) == pytest.approx(1.0, abs=0.2)
