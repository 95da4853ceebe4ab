from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitreous.app.report.figures.motioncorr import figures
from vitreous.data.motion import Motion, grid_points
from vitreous.data.table import Table
from vitreous.io.motion import MotionRecord, write_motion
from vitreous.io.mrc import write_image
from vitreous.io.relion import write_tables


@pytest.mark.parametrize(("n_movies", "local", "spectrum"), [(1, False, True), (2, True, False), (7, True, True)])
def test_pictures_of_any_number_of_movies(tmp_path: Path, n_movies: int, local: bool, spectrum: bool) -> None:
    rng = np.random.default_rng(0)
    job = tmp_path / "MotionCorr/job002"
    job.mkdir(parents=True)
    columns: dict[str, list[object]] = {"micrograph_name": [], "micrograph_metadata": []}
    for i in range(n_movies):
        image, star = f"MotionCorr/job002/m{i}.mrc", f"MotionCorr/job002/m{i}.star"
        write_image(tmp_path / image, rng.normal(size=(64, 80)).astype(np.float32), 1.0)
        shifts = np.vstack([[0, 0], rng.normal(size=(5, 2)).cumsum(0)])
        points = grid_points((64, 80), 3)
        patches = (points, rng.normal(size=(9, 6, 2)))
        model = rng.normal(size=(2, 18)) * 0.01
        motion = Motion((64, 80), shifts, model, *patches) if local else Motion((64, 80), shifts)
        write_motion(tmp_path / star, MotionRecord(motion, f"m{i}.tiff", 1.0, 1.0))
        columns["micrograph_name"].append(image)
        columns["micrograph_metadata"].append(star)
    if spectrum:
        write_image(job / "ps.mrc", rng.random((32, 32)).astype(np.float32), 1.4)
        columns["power_spectrum_name"] = ["MotionCorr/job002/ps.mrc"] * n_movies
    motions = {f"motion_{name}": rng.random(n_movies) for name in ("total", "early", "late")}
    write_tables(job / "corrected_micrographs.star", {"micrographs": Table({**columns, **motions})})
    made = figures(job, tmp_path)
    assert [figure.name for figure in made] == ["tracks", "accumulated", "micrograph"]
    assert all(figure.png.startswith(b"\x89PNG") and len(figure.png) > 5000 for figure in made)
    assert all(figure.caption for figure in made)
