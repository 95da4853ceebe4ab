"""RELION's `relion_run_ctffind` drives vitreous-ctffind as it drives CTFFIND 4.1."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.fourier import radius_grid
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import read_dataset, write_dataset

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(
        shutil.which("relion_run_ctffind") is None,
        reason="relion_run_ctffind is not installed (apt-get install relion)",
    ),
]

TALOS, PIXEL, SIZE = Microscope(200.0, 2.7, 0.1), 1.1, 1024
# defocus_u, defocus_v, angle, phase shift
TRUTH = {"a": (9300.0, 8900.0, 35.0, 0.0), "b": (21000.0, 20200.0, -60.0, 0.0)}
PLATE = {"p": (12200.0, 11800.0, 20.0, 80.0)}
# CTFFIND4's answers in RELION's own tutorial on this data set: (defocus_u, defocus_v, angle).
TUTORIAL = {"00021": (10863.9, 10575.7, 78.0), "00024": (11693.0, 11353.9, 74.4), "00026": (8346.4, 8101.4, 72.7)}


def frames(truth: tuple[float, ...], count: int = 1, strength: float = 1.0) -> np.ndarray:
    """Independent frames of noise whose power is 1 + strength CTF^2 exp(-40 k^2) over a steep background."""
    rng = np.random.default_rng(int(truth[0]))
    one = [torch.tensor([value], dtype=torch.float64) for value in truth]
    contrast = ctf((SIZE, SIZE), PIXEL, TALOS, Defocus(*one), dtype=torch.float64)[0]
    k = radius_grid((SIZE, SIZE), PIXEL)
    power = 1.0 + strength * contrast**2 * torch.exp(-40.0 * k**2) + 5.0 * torch.exp(-60.0 * k)
    white = torch.fft.rfft2(torch.from_numpy(rng.standard_normal((count, SIZE, SIZE))))
    return np.asarray(torch.fft.irfft2(white * power.sqrt(), s=(SIZE, SIZE)), dtype=np.float32)


def list_micrographs(project: Path, columns: dict[str, list[str]], pixel_size: float, lens: Microscope) -> None:
    optics = Table({"optics_group_name": ["one"], "optics_group": [1], "micrograph_pixel_size": [pixel_size]})
    optics = optics.with_columns(voltage=lens.voltage, cs=lens.cs, amplitude_contrast=lens.amplitude_contrast)
    rows = Table({**columns, "optics_group": [1] * len(columns["micrograph_name"])})
    write_dataset(project / "mics.star", Dataset("micrographs", optics, rows))


@pytest.fixture
def run_wrapper(
    program: Callable[[str], Path], shell_environment: dict[str, str], tmp_path: Path
) -> Callable[[str], Dataset]:
    """Runs relion_run_ctffind in tmp_path with more options and reads its table of micrographs."""

    def run(options: str) -> Dataset:
        words = f"relion_run_ctffind --i mics.star --o CtfFind/job003/ --is_ctffind4 {options}".split()
        words += ["--ctffind_exe", str(program("vitreous.app.ctffind")), "--ResMin", "30", "--ResMax", "4"]
        words += ["--dFMin", "5000", "--dFMax", "50000", "--FStep", "500", "--dAst", "100"]
        done = subprocess.run(
            words, cwd=tmp_path, env=shell_environment, check=True, capture_output=True, text=True, timeout=200
        )
        assert "WARNING: skipping" not in done.stderr
        return read_dataset(tmp_path / "CtfFind/job003/micrographs_ctf.star")

    return run


def check(found: dict[str, float], truth: tuple[float, ...], tolerance: float, angle_tolerance: float = 5.0) -> None:
    assert found["defocus_u"] == pytest.approx(truth[0], abs=tolerance)
    assert found["defocus_v"] == pytest.approx(truth[1], abs=tolerance)
    assert abs((found["defocus_angle"] - truth[2] + 90.0) % 180.0 - 90.0) < angle_tolerance


def test_micrographs(run_wrapper: Callable[[str], Dataset], tmp_path: Path) -> None:
    for name, truth in TRUTH.items():
        write_image(tmp_path / f"{name}.mrc", frames(truth)[0], PIXEL)
    list_micrographs(tmp_path, {"micrograph_name": [f"{name}.mrc" for name in TRUTH]}, PIXEL, TALOS)
    table = run_wrapper("")
    assert len(table) == 2
    for row, truth in zip((table.rows.row(index) for index in range(2)), TRUTH.values(), strict=True):
        check(row, truth, 40.0)
        assert row["ctf_figure_of_merit"] > 0.1
        assert row["ctf_resolution"] < 5.0
        picture, pixel_size = read_image(tmp_path / row["ctf_image"].removesuffix(":mrc"))
        # Tiles are enlarged to a length with a quick transform, and the spectrum with them.
        assert picture.shape[0] == picture.shape[1] >= 512
        assert pixel_size == pytest.approx(1.4, abs=0.01)
        profiles = np.loadtxt(tmp_path / row["ctf_image"].replace(".ctf:mrc", "_avrot.txt"))
        assert profiles.shape == (6, picture.shape[0] // 2 + 1)


def test_phase_plate(run_wrapper: Callable[[str], Dataset], tmp_path: Path) -> None:
    write_image(tmp_path / "p.mrc", frames(PLATE["p"])[0], PIXEL)
    list_micrographs(tmp_path, {"micrograph_name": ["p.mrc"]}, PIXEL, TALOS)
    row = run_wrapper("--do_phaseshift --phase_min 0 --phase_max 180 --phase_step 10").rows.row(0)
    check(row, PLATE["p"], 100.0)
    assert row["phase_shift"] == pytest.approx(80.0, abs=5.0)


def test_movie_frames(run_wrapper: Callable[[str], Dataset], tmp_path: Path) -> None:
    """Thon rings of movie frames, of which each alone shows little."""
    movie = frames(TRUTH["a"], 6, strength=0.5)
    write_image(tmp_path / "a_movie.mrcs", movie, PIXEL)
    write_image(tmp_path / "a.mrc", movie.sum(0), PIXEL)
    list_micrographs(tmp_path, {"micrograph_name": ["a.mrc"]}, PIXEL, TALOS)
    row = run_wrapper("--do_movie_thon_rings --avg_movie_frames 2 --movie_rootname _movie.mrcs").rows.row(0)
    check(row, TRUTH["a"], 40.0)


@pytest.mark.data
@pytest.mark.parametrize("fast", ["", "--fast_search"])
def test_power_spectra_of_real_movies(
    run_wrapper: Callable[[str], Dataset], tmp_path: Path, data_dir: Path, fast: str
) -> None:
    names = list(TUTORIAL)
    for name in names:
        spectrum = data_dir / f"betagal_empiar10204/MotionCorr/job002/Movies/20170629_{name}_frameImage_PS.mrc"
        shutil.copy(spectrum, tmp_path / f"{name}_PS.mrc")
        write_image(tmp_path / f"{name}.mrc", np.zeros((64, 64), np.float32), 0.885)
    columns = {"micrograph_name": [f"{n}.mrc" for n in names], "power_spectrum_name": [f"{n}_PS.mrc" for n in names]}
    list_micrographs(tmp_path, columns, 0.885, Microscope(200.0, 1.4, 0.1))
    table = run_wrapper(f"--use_given_ps {fast}")
    assert len(table) == len(names)
    for index, name in enumerate(names):
        check(table.rows.row(index), TUTORIAL[name], 100.0, 8.0)


@pytest.mark.data
def test_a_real_micrograph(run_wrapper: Callable[[str], Dataset], tmp_path: Path, data_dir: Path) -> None:
    image, _ = read_image(data_dir / "more/micrographs/fei-extended.mrc.gz")
    write_image(tmp_path / "real.mrc", image, 0.854)
    list_micrographs(tmp_path, {"micrograph_name": ["real.mrc"]}, 0.854, Microscope(300.0, 2.7, 0.07))
    row = run_wrapper("").rows.row(0)
    assert (row["defocus_u"] + row["defocus_v"]) / 2 == pytest.approx(10700.0, abs=300.0)
    assert row["ctf_resolution"] < 5.0


def test_a_micrograph_without_content_is_skipped(
    run_wrapper: Callable[[str], Dataset],
    tmp_path: Path,
    program: Callable[[str], Path],
    shell_environment: dict[str, str],
) -> None:
    """RELION says that it skips the blank one, and takes the other."""
    write_image(tmp_path / "a.mrc", frames(TRUTH["a"])[0], PIXEL)
    write_image(tmp_path / "blank.mrc", np.zeros((SIZE, SIZE), np.float32), PIXEL)
    list_micrographs(tmp_path, {"micrograph_name": ["a.mrc", "blank.mrc"]}, PIXEL, TALOS)
    with pytest.raises(AssertionError, match="WARNING: skipping"):
        run_wrapper("")
    table = read_dataset(tmp_path / "CtfFind/job003/micrographs_ctf.star")
    assert [str(name) for name in table.rows["micrograph_name"]] == ["a.mrc"]
