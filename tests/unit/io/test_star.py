from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.star import StarBlock, read_star, write_star


def star(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.star"
    path.write_text(text)
    return path


def test_loop_and_values_come_with_their_kinds(tmp_path: Path) -> None:
    blocks = read_star(
        star(
            tmp_path,
            "# version 30001\n\ndata_general\n\n_rlnA  5\n_rlnB 'two words'\n\n"
            "data_rows\nloop_\n_rlnX #1 [help]\n_rlnN #2\n_rlnS\n 1.5 1 a@b\n 2 2 007\n\n",
        )
    )
    assert list(blocks) == ["general", "rows"]
    assert not blocks["general"].is_loop
    assert blocks["general"].comments == ("version 30001",)
    assert blocks["general"].value("rlnA") == 5
    assert blocks["general"].value("rlnB") == "two words"
    rows = blocks["rows"].columns
    assert rows["rlnX"].tolist() == [1.5, 2.0]
    assert rows["rlnN"].dtype == np.int64
    assert rows["rlnS"].tolist() == ["a@b", "007"]


def test_quotes_comments_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_bytes(b"data_\r\n\r\nloop_\r\n_a\r\n_b\r\n\"x y\" 'it's' # remark\r\nO5' \"\"\r\n\r\n")
    columns = read_star(path)[""].columns
    assert columns["a"].tolist() == ["x y", "O5'"]
    assert columns["b"].tolist() == ["it's", ""]


def test_names_that_only_look_like_numbers_keep_their_text(tmp_path: Path) -> None:
    path = star(tmp_path, "data_\nloop_\n_a\n_b\n_c\n007 1_000 1\n010 2_000 +2\n")
    columns = read_star(path)[""].columns
    assert columns["a"].tolist() == ["007", "010"]
    assert columns["b"].tolist() == ["1_000", "2_000"]
    assert columns["c"].tolist() == ["1", "+2"]


def test_a_late_name_turns_the_whole_column_into_text(tmp_path: Path) -> None:
    lines = ["0.50"] * 20_000 + ["last"]
    columns = read_star(star(tmp_path, "data_\nloop_\n_a\n" + "\n".join(lines) + "\n"))[""].columns
    assert columns["a"][0] == "0.50"
    assert columns["a"][-1] == "last"


def test_integers_and_decimals_in_different_pieces_become_one_float_column(tmp_path: Path) -> None:
    lines = ["3"] * 20_000 + ["2.5"] + ["4"] * 20_000
    values = read_star(star(tmp_path, "data_\nloop_\n_a\n" + "\n".join(lines)))[""]["a"]
    assert values.dtype == np.float64
    assert values.sum() == 3 * 20_000 + 2.5 + 4 * 20_000


def test_many_blocks_are_read_in_one_pass(tmp_path: Path) -> None:
    # Looking far ahead in each of them would read the file hundreds of times over.
    n_blocks, n_rows = 400, 70
    path = tmp_path / "a.star"
    table = Table({"x": np.arange(n_rows) / 3, "name": np.array(["a b"] * n_rows, object)})
    write_star(path, {f"model_class_{i}": StarBlock(table) for i in range(n_blocks)})
    start = time.process_time()
    blocks = read_star(path)
    assert time.process_time() - start < 2.0
    assert len(blocks) == n_blocks
    assert all(np.array_equal(block["x"], table["x"]) for block in blocks.values())


def test_only_the_blocks_asked_for_are_kept(tmp_path: Path) -> None:
    path = star(tmp_path, "data_a\nloop_\n_x\n1\n2\n\ndata_b\nloop_\n_y\n3\n\n")
    assert list(read_star(path, only=["b"])) == ["b"]


def test_floats_round_trip_exactly_and_in_relions_form(tmp_path: Path) -> None:
    values = np.array([0.885, -12.76814, 1 / 3, 1e-9, 6.02e23, np.nan, np.inf, -np.inf, -0.0, 123456789.123456])
    path = tmp_path / "a.star"
    write_star(path, {"a": StarBlock(Table({"x": values})), "b": StarBlock.of_values({"y": 0.885})})
    assert "    0.885000 \n" in path.read_text()
    back = read_star(path)["a"]["x"]
    np.testing.assert_array_equal(back, values)
    assert np.signbit(back[8])
    assert read_star(path)["b"].value("y") == 0.885


def test_float32_is_written_with_its_own_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    write_star(path, {"a": StarBlock(Table({"x": np.array([0.1, 1 / 3], dtype=np.float32)}))})
    np.testing.assert_array_equal(read_star(path)["a"]["x"].astype(np.float32), np.float32([0.1, 1 / 3]))
    assert "0.100000 " in path.read_text()


def test_a_value_with_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line break"):
        write_star(tmp_path / "a.star", {"a": StarBlock(Table({"x": ["a\nb"]}))})
    assert not (tmp_path / "a.star").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no data_ block"),
        ("hello\n", "text before any data_ block"),
        ("data_a\nloop_\n_x\n_y\n1 2\n3\n", "line 6 has 1 values, the loop has 2 columns"),
        ("data_a\nloop_\n_x\n_x\n1 2\n", "names _x twice"),
        ("data_a\nloop_\n_x\n1\n\ndata_a\nloop_\n_x\n1\n", "two blocks called data_a"),
        ("data_a\nloop_\n", "without labels"),
        ("data_a\n_x\n", "gives no value"),
        ("data_a\n_x 1\n_x 2\n", "gives _x twice"),
        ("data_a\nloop_\n_x\n1\n\n2\n", "belongs to no loop"),
        ("data_a\nloop_\n_x\n1\0\n", "binary"),
    ],
)
def test_broken_files_give_one_line_with_the_path(tmp_path: Path, text: str, message: str) -> None:
    path = star(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_star(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_number_in_the_second_piece_is_still_reported_with_its_line(tmp_path: Path) -> None:
    path = star(tmp_path, "data_a\nloop_\n_x\n_y\n" + "1 2\n" * 30_000 + "1 2 3\n")
    with pytest.raises(InputError, match="line 30005 has 3 values"):
        read_star(path)
