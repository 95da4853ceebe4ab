from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.app.report.figures.select_micrographs import figures
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.job import Context, Outputs
from vitreous.jobs.select_micrographs import SelectMicrographs

N = 40


def project(path: Path, **more: np.ndarray) -> Table:
    """Forty good micrographs; number 3 hardly fits, 7 is icy, 11 drifted, 15 is far out of focus."""
    rng = np.random.default_rng(2)
    defocus = rng.uniform(8000, 20000, N)
    defocus[15] = 48000.0
    columns = {
        "defocus_u": defocus + 100.0,
        "defocus_v": defocus - 100.0,
        "ctf_resolution": rng.uniform(3.2, 4.2, N),
        "ctf_figure_of_merit": rng.uniform(0.15, 0.25, N),
        "motion_total": rng.uniform(5, 12, N),
        "motion_early": rng.uniform(1, 3, N),
        "ice_ring": rng.normal(0, 0.02, N),
    } | more
    columns["ctf_resolution"][3], columns["ice_ring"][7], columns["motion_total"][11] = 15.0, 0.6, 90.0
    names = np.array([f"MotionCorr/job002/m{i:02d}.mrc" for i in range(N)], dtype=object)
    rows = Table({"micrograph_name": names, "optics_group": np.ones(N, np.int64), **columns})
    optics = Table({"optics_group": [1], "micrograph_pixel_size": [1.0], "voltage": [300.0]})
    write_dataset(path / "mics.star", Dataset("micrographs", optics, rows))
    return rows


def run(path: Path, **params: float) -> Outputs:
    directory = path / "Select/job004"
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(path, directory, torch.device("cpu"), 1, 1, 1 << 30)
    return SelectMicrographs().run(SelectMicrographs.Parameters(input="mics.star", **params), context)


def rejected(path: Path) -> dict[str, str]:
    rows = read_dataset(path / "Select/job004/rejected.star").rows
    return {Path(str(n)).stem: str(r) for n, r in zip(rows["micrograph_name"], rows["vitreousReason"], strict=True)}


def test_each_limit_leaves_out_what_fails_it(tmp_path: Path) -> None:
    rows = project(tmp_path)
    outputs = run(tmp_path, max_resolution=6.0, max_ice=0.15, max_motion=40.0, max_defocus=30000.0)
    reasons = rejected(tmp_path)
    assert list(reasons) == ["m03", "m07", "m11", "m15"]
    assert reasons["m03"] == "CTF fit 15 A is above 6"
    assert reasons["m15"] == "defocus 48000 A is above 30000"
    kept = read_dataset(tmp_path / "Select/job004/micrographs.star")
    assert len(kept) == outputs.metrics["n_micrographs"] == N - 4
    assert set(kept.rows) == set(rows)  # nothing is added or lost: the next job takes it as it took the input
    assert outputs.metrics["n_failing_ice_ring"] == 1
    assert outputs.summary == "36 of 40 micrographs kept (1 by CTF fit, 1 by defocus, 1 by motion, 1 by ice ring)"


def test_outliers_without_any_limit(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path, outliers=6.0)
    assert list(rejected(tmp_path)) == ["m03", "m07", "m11"]  # defocus is the user's choice


def test_the_plots_show_all_micrographs_in_order(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path, max_resolution=6.0)
    (figure,) = figures(tmp_path / "Select/job004", tmp_path)
    assert figure.png.startswith(b"\x89PNG")
    assert len(figure.png) > 20000
    assert "39 of 40" in figure.caption


def test_without_limits_it_says_what_there_is(tmp_path: Path) -> None:
    project(tmp_path)
    with pytest.raises(InputError, match=r"no limit is given; its micrographs have CTF fit 3\.\d+ to 15 A"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("params", "what"),
    [({"max_resolution": 1.0}, "no micrograph is left"), ({"max_astigmatism": 100.0}, "no micrograph is left")],
)
def test_limits_that_leave_nothing(tmp_path: Path, params: dict[str, float], what: str) -> None:
    project(tmp_path)
    with pytest.raises(InputError, match=what):
        run(tmp_path, **params)


def test_a_limit_on_what_is_not_known_is_refused(tmp_path: Path) -> None:
    rows = Table({"micrograph_name": ["a.mrc"], "optics_group": [1], "motion_total": [5.0]})
    optics = Table({"optics_group": [1], "micrograph_pixel_size": [1.0]})
    write_dataset(tmp_path / "mics.star", Dataset("micrographs", optics, rows))
    with pytest.raises(InputError, match="does not say the CTF fit"):
        run(tmp_path, max_resolution=5.0)
    assert run(tmp_path, max_motion=50.0).metrics["n_micrographs"] == 1
