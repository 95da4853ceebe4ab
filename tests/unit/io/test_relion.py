from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import starfile

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.io.relion import read_dataset, read_table, read_tables, write_dataset, write_tables


def star(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.star"
    path.write_text(text)
    return path


OLD = """
data_images

loop_
_rlnVoltage #1
_rlnSphericalAberration #2
_rlnAmplitudeContrast #3
_rlnMagnification #4
_rlnDetectorPixelSize #5
_rlnDefocusU #6
_rlnImageName #7
_rlnOriginX #8
_rlnOriginY #9
_rlnOriginXPrior #10
_rlnBeamTiltX #11
300 2.7 0.1 50000 5 10000 000001@a.mrcs 2 -3 1 0.5
200 2.7 0.1 50000 5 11000 000002@a.mrcs 0 0 0 0.5
300 2.7 0.1 50000 5 12000 000003@a.mrcs 4.5 1 0 0.5
300 2.7 0.1 40000 5 12000 000003@b.mrcs 4 1 0 0.5

"""


def test_old_particles_get_optics_groups_and_origins_in_angstrom(tmp_path: Path) -> None:
    dataset = read_dataset(star(tmp_path, OLD))
    assert dataset.kind == "particles"
    assert dataset.optics["voltage"].tolist() == [300.0, 200.0, 300.0]
    assert dataset.optics["pixel_size"].tolist() == [1.0, 1.0, 1.25]
    assert dataset.optics["optics_group"].tolist() == [1, 2, 3]
    assert dataset.optics["beam_tilt_x"].tolist() == [0.5] * 3
    assert dataset.rows["optics_group"].tolist() == [1, 2, 1, 3]
    assert dataset.rows["origin_x"].tolist() == [2.0, 0.0, 4.5, 5.0]
    assert dataset.rows["origin_y"].tolist() == [-3.0, 0.0, 1.0, 1.25]
    assert dataset.rows["origin_x_prior"].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert not {"voltage", "rlnOriginX", "rlnMagnification", "rlnDetectorPixelSize"} & set(dataset.rows)
    assert dataset.optics_of_rows("voltage").tolist() == [300.0, 200.0, 300.0, 300.0]


def test_pixel_origins_in_a_file_with_optics(tmp_path: Path) -> None:
    text = "data_optics\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n7 2.0\n9 3.0\n\n"
    text += "data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnOriginX\n_rlnOriginY\n_rlnOriginYAngst\n"
    text += "1@a.mrcs 9 1.5 1 99\n2@a.mrcs 7 1.5 1 98\n"
    rows = read_dataset(star(tmp_path, text)).rows
    assert rows["origin_x"].tolist() == [4.5, 3.0]
    assert rows["origin_y"].tolist() == [99.0, 98.0]  # Angstrom is there already: it wins


def test_kinds_are_known_by_block_or_by_column(tmp_path: Path) -> None:
    for column, kind in (("MicrographMovieName", "movies"), ("MicrographName", "micrographs")):
        dataset = read_dataset(star(tmp_path, f"data_\nloop_\n_rln{column}\na\nb\n"))
        assert dataset.kind == kind
        assert dataset.rows["optics_group"].tolist() == [1, 1]
    with pytest.raises(InputError, match="holds no movies, micrographs or particles"):
        read_dataset(star(tmp_path, "data_\nloop_\n_rlnCoordinateX\n1\n"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("_rlnImageName\n_rlnOpticsGroup\n1@a 2\n", "rows name optics group 2"),
        ("_rlnImageName\n_rlnDefocusU\n1@a abc\n", "column _rlnDefocusU holds 'abc' where a number"),
        ("_rlnImageName\n_rlnOpticsGroup\n1@a 1.5\n", "column _rlnOpticsGroup holds '1.5'"),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: str, message: str) -> None:
    text = "data_optics\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n1 2.0\n\ndata_particles\nloop_\n" + rows
    with pytest.raises(InputError, match=message):
        read_dataset(star(tmp_path, text))


def test_groups_without_optics_and_optics_without_groups(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data_optics"):
        read_dataset(star(tmp_path, "data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n1@a 1\n"))
    text = "data_optics\nloop_\n_rlnOpticsGroup\n1\n2\n\ndata_particles\nloop_\n_rlnImageName\n1@a\n"
    with pytest.raises(InputError, match="has 2 optics groups but no _rlnOpticsGroup"):
        read_dataset(star(tmp_path, text))


def test_whole_numbers_with_decimals_are_integers(tmp_path: Path) -> None:
    table = read_table(star(tmp_path, "data_\nloop_\n_rlnClassNumber\n1.000000\n3.000000\n"))
    assert table["class_number"].dtype == np.int64
    assert table["class_number"].tolist() == [1, 3]


def dataset(n: int = 3) -> Dataset:
    optics = Table(
        {"optics_group": [1], "optics_group_name": ["one"], "pixel_size": [1.06], "ctf_premultiplied": [True]}
    )
    rows = Table(
        {
            "image_name": np.array([f"{i + 1:06d}@stack.mrcs" for i in range(n)], object),
            "optics_group": np.ones(n, np.int64),
            "rot": np.linspace(-180, 180, n),
            "rlnNobodyKnows": np.array(["a b", "", "#c"] * (n // 3 + 1), object)[:n],
            "group_name": np.array(["1", "2", "003"] * (n // 3 + 1), object)[:n],
        }
    )
    return Dataset("particles", optics, rows)


def test_round_trip_keeps_names_order_and_unknown_columns(tmp_path: Path) -> None:
    before = dataset()
    write_dataset(tmp_path / "a.star", before)
    after = read_dataset(tmp_path / "a.star")
    assert list(after.rows) == list(before.rows)
    for name in before.rows:
        assert after.rows[name].tolist() == before.rows[name].tolist()
    assert after.optics["ctf_premultiplied"].tolist() == [True]
    text = (tmp_path / "a.star").read_text()
    assert text.count("# version 30001") == 2
    assert "_rlnAngleRot #3 \n" in text


def test_starfile_reads_what_we_write(tmp_path: Path) -> None:
    before = dataset()
    write_dataset(tmp_path / "a.star", before)
    oracle = starfile.read(tmp_path / "a.star")
    assert oracle["particles"]["rlnAngleRot"].tolist() == before.rows["rot"].tolist()
    assert oracle["particles"]["rlnImageName"].tolist() == before.rows["image_name"].tolist()
    assert float(oracle["optics"]["rlnImagePixelSize"].iloc[0]) == 1.06


def test_we_read_what_starfile_writes(tmp_path: Path) -> None:
    plain = dataset()
    # starfile does not quote empty values, so that it could not read this column itself.
    write_dataset(tmp_path / "a.star", Dataset("particles", plain.optics, plain.rows.without("rlnNobodyKnows")))
    starfile.write(starfile.read(tmp_path / "a.star"), tmp_path / "b.star")
    back = read_dataset(tmp_path / "b.star")
    assert back.rows["rot"].tolist() == dataset().rows["rot"].tolist()
    assert back.rows["group_name"].tolist()[:2] == ["1", "2"]


def test_tables_and_single_values(tmp_path: Path) -> None:
    path = tmp_path / "model.star"
    shells = Table({"shell": [0, 1], "fsc_corrected": [1.0, 0.5]})
    write_tables(path, {"general": {"pixel_size": 1.5, "rlnUnheardOf": "mask.mrc", "rlnIsHelix": False}, "fsc": shells})
    tables = read_tables(path)
    assert tables["general"]["pixel_size"][0] == 1.5
    assert tables["general"]["rlnUnheardOf"][0] == "mask.mrc"
    assert tables["general"]["rlnIsHelix"][0] == 0
    assert read_table(path, "fsc")["fsc_corrected"].tolist() == [1.0, 0.5]
    with pytest.raises(InputError, match="has 2 blocks"):
        read_table(path)
    with pytest.raises(InputError, match="has no block data_optics"):
        read_table(path, "optics")


def test_empty_tables_round_trip(tmp_path: Path) -> None:
    empty = Dataset("particles", dataset().optics, dataset().rows.take(np.zeros(0, int)))
    write_dataset(tmp_path / "a.star", empty)
    back = read_dataset(tmp_path / "a.star")
    assert len(back) == 0
    assert list(back.rows) == list(empty.rows)
    assert back.rows["rot"].dtype == np.float64


@pytest.mark.slow
def test_a_million_rows_take_seconds(tmp_path: Path) -> None:
    n = 1_000_000
    rng = np.random.default_rng(0)
    columns = {name: np.round(rng.random(n) * 1e4, 6) for name in ("rot", "tilt", "psi", "origin_x", "origin_y")}
    columns |= {f"rlnFloat{i}": np.round(rng.random(n) * 100, 6) for i in range(10)}
    columns |= {f"rlnInt{i}": rng.integers(0, 1000, n) for i in range(3)}
    names = np.array([f"{i % 500 + 1:06d}@Extract/job009/Movies/m_{i // 500:05d}.mrcs" for i in range(n)], object)
    rows = Table({"image_name": names, "optics_group": np.ones(n, int), **columns})
    start = time.process_time()
    write_dataset(tmp_path / "a.star", Dataset("particles", dataset().optics, rows))
    written = time.process_time()
    back = read_dataset(tmp_path / "a.star")
    read = time.process_time()
    for name in rows:
        assert np.array_equal(back.rows[name], rows[name])
    assert written - start < 30
    assert read - written < 20
