"""Picks out to other programs and back in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.cryosparc_picks import PickedMicrograph, write_cryosparc_picks
from vitreous.io.mrc import write_image
from vitreous.io.relion import read_table, write_dataset, write_tables
from vitreous.job import Context, Job, Outputs
from vitreous.jobs._picks import match_names, read_picks
from vitreous.jobs.export_coordinates import ExportCoordinates
from vitreous.jobs.import_ import Import

NAMES = ["MotionCorr/job002/movies/m1.mrc", "MotionCorr/job002/movies/m10.mrc"]
PLACES = {NAMES[0]: [[10.25, 20.5], [50.0, 60.75]], NAMES[1]: [[5.0, 90.0]]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = []
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, np.zeros((100, 160), np.float32), 1.5)
        files.append(f"{Path(name).stem}_pick.star")
        x, y = np.array(PLACES[name]).T
        rows = Table({"coordinate_x": x, "coordinate_y": y, "pick_score": np.arange(len(x)) + 1.0})
        write_tables(tmp_path / files[-1], {"": rows})
    listing = Table({"micrograph_name": NAMES, "coordinate_file": files})
    write_tables(tmp_path / "autopick.star", {"coordinate_files": listing})
    optics = Table({"optics_group_name": ["a"], "optics_group": [1], "micrograph_pixel_size": [1.5]})
    rows = Table({"micrograph_name": NAMES, "optics_group": [1, 1]})
    write_dataset(tmp_path / "micrographs.star", Dataset("micrographs", optics, rows))
    return tmp_path


def run(job: type[Job], project: Path, folder: str, **values: object) -> Outputs:
    (project / folder).mkdir(parents=True)
    context = Context(project, project / folder, torch.device("cpu"), 1, 1, 1 << 30)
    return job().run(job.Parameters(**values), context)


def export(project: Path, folder: str, **values: object) -> Outputs:
    given = {"coordinates": "autopick.star", "micrographs": "micrographs.star"}
    return run(ExportCoordinates, project, folder, **{**given, **values})


@pytest.mark.parametrize("flip", [False, True])
def test_by_way_of_cryosparc(project: Path, flip: bool) -> None:
    assert export(project, "ExportCoordinates/job003", format="cs", flip_y=flip).metrics["n_picks"] == 3
    source = "ExportCoordinates/job003/picks.cs"
    run(Import, project, "Import/job004", coordinates=source, micrographs="micrographs.star", flip_y=flip)
    back = read_picks(project / "Import/job004/coordinates.star", project)
    assert list(back) == NAMES
    for name in NAMES:
        found = np.stack([back[name]["coordinate_x"], back[name]["coordinate_y"]], 1)
        np.testing.assert_allclose(found, PLACES[name], atol=1e-3)
    assert back[NAMES[0]]["pick_score"].tolist() == [1.0, 2.0]


def test_by_way_of_box_and_star_files(project: Path) -> None:
    export(project, "ExportCoordinates/job003", format="box", box=20)
    assert (project / "ExportCoordinates/job003/movies/m1.box").read_text().splitlines()[1] == "40\t51\t20\t20"
    export(project, "ExportCoordinates/job004", format="star", min_score=2.0)
    listing = read_table(project / "ExportCoordinates/job004/coordinates.star", "coordinate_files")
    assert listing["coordinate_file"][0] == "ExportCoordinates/job004/movies/m1_pick.star"
    assert read_picks(project / "ExportCoordinates/job004/coordinates.star", project)[NAMES[0]].n_rows == 1


def test_names_that_cryosparc_gave_are_found_again(project: Path) -> None:
    theirs = "J7/motioncorrected/000123456789012345678_m10_patch_aligned_doseweighted.mrc"
    picks = Table({"coordinate_x": [80.0], "coordinate_y": [25.0]})
    made = [PickedMicrograph(name, (100, 160), 1.5, picks) for name in (theirs, "J7/imported/other.mrc")]
    write_cryosparc_picks(project / "p.cs", made)
    outputs = run(Import, project, "Import/job004", coordinates="p.cs", micrographs="micrographs.star")
    assert list(read_picks(project / "Import/job004/coordinates.star", project)) == [NAMES[1]]
    assert [item.item for item in outputs.quarantined] == ["J7/imported/other.mrc"]
    assert list(match_names({"x_m1_y.mrc": picks}, NAMES)) == [NAMES[0]]


def test_what_cannot_be_is_one_line(project: Path) -> None:
    with pytest.raises(InputError, match="side of the boxes"):
        export(project, "ExportCoordinates/job003", format="box")
    with pytest.raises(InputError, match="leaves no picks"):
        export(project, "ExportCoordinates/job004", format="cs", min_score=9.0)
    with pytest.raises(InputError, match="needs the micrographs"):
        run(Import, project, "Import/job005", coordinates="autopick.star")
