"""The ctf job on synthetic micrographs: values, quarantine, resume, the warning about a wrong old defocus."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.app.report.figures import ctf as ctf_figures
from vitreous.core.ctf import Defocus, Microscope, ctf
from vitreous.core.errors import InputError
from vitreous.core.fourier import radius_grid
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import read_image, write_image
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context, Outputs
from vitreous.jobs.ctf import Ctf, CtfParameters

PIXEL, SIZE = 1.5, 768
DEFOCI = {"a": (12300.0, 11900.0, 20.0), "b": (18200.0, 17900.0, -60.0), "c": (9000.0, 8700.0, 70.0)}


def micrograph(defocus_u: float, defocus_v: float, angle: float) -> np.ndarray:
    rng = np.random.default_rng(int(defocus_u))
    one = [torch.tensor([value], dtype=torch.float64) for value in (defocus_u, defocus_v, angle, 0.0)]
    contrast = ctf((SIZE, SIZE), PIXEL, Microscope(300.0, 2.7, 0.1), Defocus(*one), dtype=torch.float64)[0]
    power = 1.0 + 1.5 * contrast**2 * torch.exp(-40.0 * radius_grid((SIZE, SIZE), PIXEL) ** 2)
    white = torch.fft.rfft2(torch.from_numpy(rng.standard_normal((SIZE, SIZE))))
    return np.asarray(torch.fft.irfft2(white * power.sqrt(), s=(SIZE, SIZE)), dtype=np.float32)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    names = [f"MotionCorr/job002/movies/{name}.mrc" for name in (*DEFOCI, "blank", "gone")]
    folder = tmp_path / "MotionCorr/job002/movies"
    folder.mkdir(parents=True)
    for name, defocus in DEFOCI.items():
        write_image(folder / f"{name}.mrc", micrograph(*defocus), PIXEL)
    write_image(folder / "blank.mrc", np.zeros((SIZE, SIZE), np.float32), PIXEL)
    optics = {"optics_group": [1], "optics_group_name": ["o"], "voltage": [300.0], "cs": [2.7]}
    optics |= {"amplitude_contrast": [0.1], "micrograph_pixel_size": [PIXEL]}
    rows = Table({"micrograph_name": names, "optics_group": np.ones(len(names), np.int64)})
    write_dataset(tmp_path / "mics.star", Dataset("micrographs", Table(optics), rows))
    return tmp_path


def run(project: Path, resume: bool = False, **values: object) -> Outputs:
    directory = project / "CtfFind/job003"
    directory.mkdir(parents=True, exist_ok=True)
    params = CtfParameters(input="mics.star", box=384, **values)  # type: ignore[arg-type]
    return Ctf().run(params, Context(project, directory, torch.device("cpu"), 2, 1, 1 << 30, resume=resume))


def test_fits_quarantines_and_draws(project: Path) -> None:
    outputs = run(project)
    assert outputs.nodes == {"CtfFind/job003/micrographs_ctf.star": "MicrographGroupMetadata.star.relion.ctf"}
    reasons = {Path(item.item).stem: item.reason for item in outputs.quarantined}
    assert "constant" in reasons["blank"]
    assert "not there" in reasons["gone"]
    rows = read_dataset(project / "CtfFind/job003/micrographs_ctf.star").rows
    assert rows.n_rows == 3
    for index, (u, v, _) in enumerate(DEFOCI.values()):
        assert abs(rows["defocus_u"][index] + rows["defocus_v"][index] - u - v) / 2 < 60.0
        assert rows["astigmatism"][index] == pytest.approx(rows["defocus_u"][index] - rows["defocus_v"][index])
    assert "phase_shift" not in rows
    picture = project / str(rows["ctf_image"][0]).removesuffix(":mrc")
    image, _ = read_image(picture)
    assert picture == project / "CtfFind/job003/movies/a_ctf.mrc"
    half = image.shape[1] // 2
    mirrored = np.roll(image[::-1, 1:half][:, ::-1], 1, axis=0)
    # Measured and fitted halves show the same rings.
    ring = slice(half // 5, half // 2)
    assert np.corrcoef(mirrored[:, ring].ravel(), image[:, half + 1 :][:, ring].ravel())[0, 1] > 0.4
    drawn = ctf_figures.figures(project / "CtfFind/job003", project)
    assert [figure.name for figure in drawn] == ["ctf_rings", "ctf_curves", "ctf_spread"]
    assert all(figure.png.startswith(b"\x89PNG") for figure in drawn)


def test_resume_keeps_what_is_done(project: Path) -> None:
    first = run(project)
    kept, redone = (project / f"CtfFind/job003/movies/{name}_ctf.star" for name in ("a", "b"))
    before = kept.stat().st_mtime_ns
    table = (project / "CtfFind/job003/micrographs_ctf.star").read_text()
    redone.write_text("data_general\n\nloop_\n_cut")
    second = run(project, resume=True)
    assert kept.stat().st_mtime_ns == before
    assert redone.stat().st_size > 1000
    assert second.metrics == first.metrics
    assert (project / "CtfFind/job003/micrographs_ctf.star").read_text() == table


def test_wrong_defocus_in_the_input_is_reported(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = read_dataset(project / "mics.star")
    old = {"defocus_u": [38000.0, 18180.0, 45000.0, 1e4, 1e4], "defocus_v": [37000.0, 17880.0, 44000.0, 1e4, 1e4]}
    columns = {name: np.array(values) for name, values in old.items()}
    write_dataset(project / "mics.star", dataset.with_columns(**columns, defocus_angle=np.full(5, -60.0)))
    with caplog.at_level(logging.WARNING):
        outputs = run(project)
    warned = [record.getMessage() for record in caplog.records if "does not fit" in record.getMessage()]
    # Micrographs are fitted side by side: the lines come in any order.
    assert sorted(Path(message.split(":")[0]).stem for message in warned) == ["a", "c"]
    assert outputs.metrics["n_previous_wrong"] == 2
    assert "did not fit" in outputs.summary


def test_bad_resolution_is_left_out_on_request(project: Path) -> None:
    with pytest.raises(InputError, match="no CTF could be fitted"):
        run(project, max_resolution=2.0)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"defocus_min": 40000.0, "defocus_max": 10000.0}, "defocus_min"),
        ({"resolution_min": 4.0}, "resolution_max"),
    ],
)
def test_bad_parameters(project: Path, values: dict[str, float], what: str) -> None:
    with pytest.raises(InputError, match=what):
        run(project, **values)


def test_optics_without_voltage(project: Path) -> None:
    dataset = read_dataset(project / "mics.star")
    write_dataset(project / "mics.star", Dataset("micrographs", dataset.optics.without("voltage"), dataset.rows))
    with pytest.raises(InputError, match="voltage"):
        run(project)


def test_tilt_and_thickness_are_columns_where_they_are_asked_for(project: Path) -> None:
    outputs = run(project, tilt=True, thickness_max=3000.0)
    rows = read_dataset(project / "CtfFind/job003/micrographs_ctf.star").rows
    assert np.allclose(rows["sample_tilt"], 0.0)  # they are flat
    assert np.allclose(rows["sample_thickness"], 0.0)  # and thin
    assert "tilts 0 to 0 degrees; 0 show nodes of thickness" in outputs.summary
    for index, (u, v, _) in enumerate(DEFOCI.values()):
        assert abs(rows["defocus_u"][index] + rows["defocus_v"][index] - u - v) / 2 < 60.0
    again = run(project, resume=True, tilt=True, thickness_max=3000.0)
    assert again.summary == outputs.summary
    with pytest.raises(InputError, match="--tilt: cannot be told"):
        run(project, tilt=True, use_power_spectra=True)


def test_a_tilt_asked_for_later_is_found_on_resuming(project: Path) -> None:
    run(project)
    run(project, resume=True, tilt=True)
    rows = read_dataset(project / "CtfFind/job003/micrographs_ctf.star").rows
    assert np.isfinite(rows["sample_tilt"]).all()
