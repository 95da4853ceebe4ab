from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.core.errors import InputError
from vitreous.data.table import Table
from vitreous.io.cryosparc_picks import PickedMicrograph, read_cryosparc_picks, write_cryosparc_picks

sizes = st.integers(64, 8192)


@given(height=sizes, width=sizes, places=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8),
       flip=st.booleans())  # fmt: skip
def test_picks_come_back_to_a_thousandth_of_a_pixel(
    height: int, width: int, places: list[tuple[float, float]], flip: bool
) -> None:
    x, y = (np.array(axis) for axis in zip(*places, strict=True))
    picks = Table({"coordinate_x": x * width, "coordinate_y": y * height, "pick_score": np.arange(len(x)) * 0.5})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.cs"
        write_cryosparc_picks(path, [PickedMicrograph("J1/é m.mrc", (height, width), 1.1, picks)], flip_y=flip)
        back = read_cryosparc_picks(path, flip_y=flip)["J1/é m.mrc"]
    for column in picks:
        np.testing.assert_allclose(back[column], picks[column], atol=1e-3)  # fractions are float32, as cryoSPARC's


def test_fractions_follow_the_rows_of_the_file(tmp_path: Path) -> None:
    picks = Table({"coordinate_x": [200.0], "coordinate_y": [50.0], "psi": [90.0], "class_number": [3]})
    name = "J2/motioncorrected/000000000000000000017_m_aligned.mrc"
    write_cryosparc_picks(tmp_path / "p.cs", [PickedMicrograph(name, (400, 800), 1.5, picks)])
    row = np.load(tmp_path / "p.cs")[0]
    assert (row["location/center_x_frac"], row["location/center_y_frac"]) == (0.25, 0.125)
    assert row["location/micrograph_shape"].tolist() == [400, 800]
    assert row["location/micrograph_uid"] == 17
    assert row["location/micrograph_psize_A"] == pytest.approx(1.5)
    assert row["pick_stats/angle_rad"] == pytest.approx(np.pi / 2)
    assert row["pick_stats/template_idx"] == 2
    write_cryosparc_picks(tmp_path / "q.cs", [PickedMicrograph(name, (400, 800), 1.5, picks)], flip_y=True)
    assert np.load(tmp_path / "q.cs")[0]["location/center_y_frac"] == 0.875


def test_uids_are_distinct_and_the_same_each_time(tmp_path: Path) -> None:
    picks = Table({"coordinate_x": np.arange(50.0), "coordinate_y": np.zeros(50)})
    both = [PickedMicrograph(name, (100, 100), 1.0, picks) for name in ("a.mrc", "longer/b.mrc")]
    for file in ("p.cs", "q.cs"):
        write_cryosparc_picks(tmp_path / file, both)
    uid = np.load(tmp_path / "p.cs")["uid"]
    assert len(set(uid.tolist())) == 100
    assert (tmp_path / "p.cs").read_bytes() == (tmp_path / "q.cs").read_bytes()
    assert set(read_cryosparc_picks(tmp_path / "p.cs")) == {"a.mrc", "longer/b.mrc"}


def test_a_file_without_places_is_one_line(tmp_path: Path) -> None:
    with (tmp_path / "p.cs").open("wb") as stream:
        np.save(stream, np.zeros(2, [("uid", "<u8")]))
    with pytest.raises(InputError, match="does not say where particles lie"):
        read_cryosparc_picks(tmp_path / "p.cs")
