from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.coordinates import read_coordinates, write_box
from vitreous.io.relion import write_tables


def test_box_files_come_back_to_half_a_pixel(tmp_path: Path) -> None:
    points = np.array([[100.0, 200.0], [33.4, 7.6]])
    write_box(tmp_path / "m.box", points, 64)
    table = read_coordinates(tmp_path / "m.box")
    assert table["coordinate_x"] == pytest.approx([100.0, 33.0])
    assert table["coordinate_y"] == pytest.approx([200.0, 8.0])


def test_eman_box_is_read_by_its_corner(tmp_path: Path) -> None:
    (tmp_path / "m.box").write_text("10 20 100 100 -3\n\n-5\t0\t101\t101\n")
    table = read_coordinates(tmp_path / "m.box")
    assert table["coordinate_x"] == pytest.approx([60.0, 45.5])
    assert table["coordinate_y"] == pytest.approx([70.0, 50.5])


def test_an_empty_box_file_holds_no_picks(tmp_path: Path) -> None:
    (tmp_path / "m.box").write_text("")
    assert read_coordinates(tmp_path / "m.box").n_rows == 0


def test_star_files_keep_their_columns(tmp_path: Path) -> None:
    rows = Table({"coordinate_x": [1.5], "coordinate_y": [2.5], "pick_score": [7.0]})
    write_tables(tmp_path / "m.star", {"": rows})
    assert float(read_coordinates(tmp_path / "m.star")["pick_score"][0]) == 7.0


@pytest.mark.parametrize("text", ["1 2 3\n", "a b c d\n", "1 2\n1 2 3 4\n"])
def test_what_is_no_box_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.box").write_text(text)
    with pytest.raises(InputError, match=r"is no \.box file"):
        read_coordinates(tmp_path / "m.box")


def test_missing_files_and_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_coordinates(tmp_path / "gone.box")
    write_tables(tmp_path / "m.star", {"": Table({"pick_score": [7.0]})})
    with pytest.raises(InputError, match="no coordinates"):
        read_coordinates(tmp_path / "m.star")
