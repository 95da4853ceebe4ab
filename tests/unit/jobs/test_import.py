from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.app.report.figures.import_ import figures
from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.mrc import write_image
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.io.star import read_star
from vitreous.io.tiff import write_tiff
from vitreous.job import Context, Outputs
from vitreous.jobs.import_ import Import

RNG = np.random.default_rng(5)


def run(project: Path, **parameters: object) -> Outputs:
    directory = project / "Import" / "job001"
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(project, directory, torch.device("cpu"), 1, 1, 10**9)
    return Import().run(Import.Parameters(**parameters), context)


def movies(project: Path, n: int = 3) -> None:
    (project / "Movies").mkdir()
    for i in range(n):
        write_tiff(project / f"Movies/m{i}.tiff", RNG.poisson(2, (4, 30, 20)).astype(np.uint8), 0.885)


@pytest.mark.data
def test_movies_star_has_relions_blocks_and_columns_in_its_order(tmp_path: Path, data_dir: Path) -> None:
    movies(tmp_path)
    (tmp_path / "mtf_k2_200kV.star").write_text("data_\n")
    outputs = run(tmp_path, movies="Movies/*.tiff", pixel_size=0.885, voltage=200, cs=1.4, mtf="mtf_k2_200kV.star")
    ours = read_star(tmp_path / "Import/job001/movies.star")
    theirs = read_star(data_dir / "betagal_empiar10204/Import/job001/movies.star")
    assert list(ours) == list(theirs)
    for name in ours:
        assert list(ours[name].columns) == list(theirs[name].columns)
        assert ours[name].is_loop == theirs[name].is_loop
    for label, values in theirs["optics"].columns.items():
        assert ours["optics"][label][0] == values[0]
    assert ours["movies"]["rlnMicrographMovieName"].tolist() == [f"Movies/m{i}.tiff" for i in range(3)]
    assert outputs.nodes == {"Import/job001/movies.star": "MicrographMovieGroupMetadata.star.relion"}
    assert outputs.metrics["n_movies"] == 3
    assert outputs.summary == "3 movies of 20 x 30 pixels, 4 frames"
    (picture,) = figures(tmp_path / "Import/job001", tmp_path)
    assert picture.name == "movies"
    assert "counts a pixel and frame" in picture.caption


def test_pixel_size_comes_from_the_headers_where_it_is_not_given(tmp_path: Path) -> None:
    movies(tmp_path)
    run(tmp_path, movies="Movies/*.tiff")
    optics = read_dataset(tmp_path / "Import/job001/movies.star").optics
    assert optics["movie_pixel_size"][0] == pytest.approx(0.885, rel=1e-4)


def test_a_clash_of_pixel_sizes_is_said(tmp_path: Path) -> None:
    movies(tmp_path)
    outputs = run(tmp_path, movies="Movies/*.tiff", pixel_size=1.77)
    assert "3 of 3 headers give another pixel size than 1.7700 A" in outputs.summary
    write_tiff(tmp_path / "Movies/m2.tiff", np.ones((4, 30, 20), np.uint8), 0.5)
    with pytest.raises(InputError, match="headers disagree on the pixel size"):
        run(tmp_path, movies="Movies/*.tiff")


def test_no_pixel_size_anywhere(tmp_path: Path) -> None:
    write_image(tmp_path / "a.mrcs", np.zeros((2, 8, 8)), 0.0)
    with pytest.raises(InputError, match="do not say their pixel size"):
        run(tmp_path, movies="*.mrcs")


def test_bad_movies_are_left_out_with_the_reason(tmp_path: Path) -> None:
    movies(tmp_path)
    (tmp_path / "Movies/m1.tiff").write_bytes(b"nonsense")
    outputs = run(tmp_path, movies="Movies/*.tiff", pixel_size=0.885)
    assert [one.item for one in outputs.quarantined] == ["Movies/m1.tiff"]
    assert len(read_dataset(tmp_path / "Import/job001/movies.star")) == 2
    for path in (tmp_path / "Movies").iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="none of 3 files opens"):
        run(tmp_path, movies="Movies/*.tiff", pixel_size=0.885)


def test_movies_of_different_sizes_are_said(tmp_path: Path) -> None:
    movies(tmp_path)
    write_tiff(tmp_path / "Movies/odd.tiff", np.ones((5, 8, 8), np.uint8), 0.885)
    outputs = run(tmp_path, movies="Movies/*.tiff", pixel_size=0.885)
    assert "2 sizes" in outputs.summary
    assert (outputs.metrics["frames_min"], outputs.metrics["frames_max"]) == (4, 5)


def test_micrographs(tmp_path: Path) -> None:
    write_image(tmp_path / "a.mrc", RNG.normal(size=(16, 20)), 1.2)
    write_image(tmp_path / "b.mrc", np.zeros((3, 16, 20)), 1.2)
    outputs = run(tmp_path, micrographs=str(tmp_path / "*.mrc"), pixel_size=1.2, beam_tilt_x=0.1)
    assert [one.item for one in outputs.quarantined] == ["b.mrc"]
    optics = read_star(tmp_path / "Import/job001/micrographs.star")["optics"].columns
    assert list(optics) == [
        "rlnOpticsGroupName",
        "rlnOpticsGroup",
        "rlnMicrographPixelSize",
        "rlnMicrographOriginalPixelSize",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
        "rlnBeamTiltX",
        "rlnBeamTiltY",
    ]
    assert len(figures(tmp_path / "Import/job001", tmp_path)) == 1


def test_a_star_file_keeps_its_columns_and_loses_what_does_not_open(tmp_path: Path) -> None:
    movies(tmp_path)
    optics = Table({"optics_group": [1, 2], "optics_group_name": ["a", "b"], "movie_pixel_size": [0.885, 0.885]})
    names = np.array(["Movies/m0.tiff", "Movies/none.tiff", "Movies/m2.tiff"], object)
    rows = Table({"movie_name": names, "optics_group": [2, 1, 1], "rlnExtra": [5.5, 6.5, 7.5]})
    write_dataset(tmp_path / "in.star", Dataset("movies", optics, rows))
    run(tmp_path, movies="in.star")
    back = read_dataset(tmp_path / "Import/job001/movies.star")
    assert back.rows["rlnExtra"].tolist() == [5.5, 7.5]
    assert back.rows["optics_group"].tolist() == [2, 1]
    with pytest.raises(InputError, match="lists movies, not micrographs"):
        run(tmp_path, micrographs="in.star")


def particles(folder: Path) -> None:
    write_image(folder / "Extract/a.mrcs", RNG.normal(size=(5, 8, 8)), 2.0)
    rows = Table({"image_name": [f"{i + 1:06d}@Extract/a.mrcs" for i in range(5)], "optics_group": np.ones(5, int)})
    optics = Table({"optics_group": [1], "optics_group_name": ["x"], "pixel_size": [2.0], "voltage": [300.0]})
    write_dataset(folder / "Extract/particles.star", Dataset("particles", optics, rows))


def test_particles_of_another_project_get_whole_paths(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    particles(tmp_path / "other")
    outputs = run(project, particles=str(tmp_path / "other/Extract/particles.star"), particles_optics_group_name="new")
    back = read_dataset(project / "Import/job001/particles.star")
    assert back.rows["image_name"][0] == f"000001@{tmp_path}/other/Extract/a.mrcs"
    assert back.optics["box"][0] == 8
    assert back.optics["optics_group_name"][0] == "new"
    assert back.optics["cs"][0] == 2.7
    assert outputs.metrics["n_particles"] == 5
    assert figures(project / "Import/job001", project)[0].name == "particles"


def test_particles_of_this_project_keep_their_names(tmp_path: Path) -> None:
    particles(tmp_path)
    run(tmp_path, particles="Extract/particles.star")
    back = read_dataset(tmp_path / "Import/job001/particles.star")
    assert back.rows["image_name"][4] == "000005@Extract/a.mrcs"


def test_particles_without_their_stack(tmp_path: Path) -> None:
    particles(tmp_path)
    (tmp_path / "Extract/a.mrcs").unlink()
    with pytest.raises(InputError, match=r"names the stack Extract/a\.mrcs, which is not there"):
        run(tmp_path, particles="Extract/particles.star")


def test_a_stack_shorter_than_its_star_file(tmp_path: Path) -> None:
    particles(tmp_path)
    write_image(tmp_path / "Extract/a.mrcs", RNG.normal(size=(4, 8, 8)), 2.0)
    with pytest.raises(InputError, match="has 4 images; number 5"):
        run(tmp_path, particles="Extract/particles.star")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "needs one of"),
        ({"movies": "a", "particles": "b"}, "needs one of"),
        ({"movies": "none/*.tiff"}, "matches no file"),
        ({"movies": "none.star"}, "cannot be read"),
    ],
)
def test_wrong_parameters(tmp_path: Path, parameters: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, **parameters)


def test_mtf_must_be_there(tmp_path: Path) -> None:
    movies(tmp_path)
    with pytest.raises(InputError, match=r"mtf\.star: is not there"):
        run(tmp_path, movies="Movies/*.tiff", mtf="mtf.star")


@pytest.mark.data
def test_real_particles(tmp_path: Path, data_dir: Path) -> None:
    outputs = run(tmp_path, particles=str(data_dir / "betagal_empiar10204/Extract/job009/particles.star"))
    assert outputs.metrics["n_particles"] == 2374
    assert outputs.metrics["n_stacks"] == 10


@pytest.mark.data
def test_real_particles_of_cryosparc(tmp_path: Path, data_dir: Path) -> None:
    outputs = run(tmp_path, particles=str(data_dir / "particles/empiar_10076_7.cs"))
    assert (outputs.metrics["n_particles"], outputs.metrics["box"]) == (7, 320)
    back = read_dataset(tmp_path / "Import/job001/particles.star")
    theirs = read_dataset(data_dir / "particles/empiar_10076_7.star")
    np.testing.assert_allclose(back.rows["defocus_u"], theirs.rows["defocus_u"], rtol=1e-6)
    with pytest.raises(InputError, match=r"belongs to a \.cs file"):
        run(tmp_path, particles=str(data_dir / "particles/empiar_10076_7.star"), passthrough="x.cs")
