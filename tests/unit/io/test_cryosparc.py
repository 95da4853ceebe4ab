from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from vitreous.core.errors import InputError
from vitreous.core.rotations import euler_to_matrix
from vitreous.io.cryosparc import read_cryosparc, read_cs
from vitreous.io.relion import read_dataset, write_dataset

N = 6


def cs_file(path: Path, seed: int = 0, **extra: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fields = [
        ("uid", "<u8"),
        ("blob/path", "S30"),
        ("blob/idx", "<u4"),
        ("blob/shape", "<u4", (2,)),
        ("blob/psize_A", "<f4"),
        ("ctf/exp_group_id", "<u4"),
        ("ctf/accel_kv", "<f4"),
        ("ctf/cs_mm", "<f4"),
        ("ctf/amp_contrast", "<f4"),
        ("ctf/df1_A", "<f4"),
        ("ctf/df2_A", "<f4"),
        ("ctf/df_angle_rad", "<f4"),
        ("ctf/tilt_A", "<f4", (2,)),
        ("alignments3D/split", "<u4"),
        ("alignments3D/shift", "<f4", (2,)),
        ("alignments3D/pose", "<f4", (3,)),
        ("alignments3D/psize_A", "<f4"),
        ("alignments3D/class", "<u4"),
    ]
    table = np.zeros(N, dtype=fields)
    table["uid"] = np.uint64(2**63) + np.arange(N, dtype=np.uint64)
    table["blob/path"] = b">J1/a.mrc"
    table["blob/idx"] = np.arange(N)
    table["blob/shape"] = 64
    table["blob/psize_A"] = 1.06
    table["alignments3D/psize_A"] = 2.12
    table["ctf/exp_group_id"] = [1, 1, 1, 2, 2, 2]
    table["ctf/accel_kv"], table["ctf/cs_mm"], table["ctf/amp_contrast"] = 300, 2.7, 0.1
    table["ctf/df1_A"], table["ctf/df2_A"], table["ctf/df_angle_rad"] = 15000, 14000, 0.5
    table["ctf/tilt_A"] = 2.7e7 * np.sin(1e-3)
    table["alignments3D/split"] = np.arange(N) % 2
    table["alignments3D/shift"] = [1.5, -2]
    table["alignments3D/pose"] = rng.normal(size=(N, 3))
    table["alignments3D/pose"][0] = 0
    with path.open("wb") as handle:
        np.save(handle, table)
    return table


def test_particles_in_our_terms(tmp_path: Path) -> None:
    table = cs_file(tmp_path / "a.cs")
    dataset = read_cryosparc(tmp_path / "a.cs")
    rows, optics = dataset.rows, dataset.optics
    assert rows["image_name"][2] == "000003@J1/a.mrc"
    assert optics["voltage"].tolist() == [300, 300]
    assert optics["pixel_size"].tolist() == [1.06, 1.06]
    assert optics["box"].tolist() == [64, 64]
    assert rows["optics_group"].tolist() == [1, 1, 1, 2, 2, 2]
    assert rows["half_set"].tolist() == [1, 2, 1, 2, 1, 2]
    assert rows["class_number"].tolist() == [1] * N
    np.testing.assert_allclose(rows["origin_x"], 1.5 * 2.12, rtol=1e-6)
    np.testing.assert_allclose(rows["origin_y"], -2 * 2.12, rtol=1e-6)
    np.testing.assert_allclose(rows["defocus_angle"], np.rad2deg(0.5), rtol=1e-6)
    np.testing.assert_allclose(optics["beam_tilt_x"], 1.0, rtol=1e-5)
    assert rows["ucsfUid"][0] == str(2**63)
    matrices = euler_to_matrix(*(torch.from_numpy(rows[name]) for name in ("rot", "tilt", "psi"))).numpy()
    expected = Rotation.from_rotvec(table["alignments3D/pose"]).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(matrices, expected, atol=1e-6)


def test_becomes_a_star_file(tmp_path: Path) -> None:
    cs_file(tmp_path / "a.cs")
    dataset = read_cryosparc(tmp_path / "a.cs")
    write_dataset(tmp_path / "a.star", dataset)
    back = read_dataset(tmp_path / "a.star")
    np.testing.assert_array_equal(back.rows["rot"], dataset.rows["rot"])
    assert back.rows["image_name"].tolist() == dataset.rows["image_name"].tolist()


def passthrough_file(path: Path, uids: np.ndarray) -> None:
    fields = [
        ("uid", "<u8"),
        ("location/micrograph_path", "S20"),
        ("location/micrograph_shape", "<u4", (2,)),
        ("location/center_x_frac", "<f4"),
        ("location/center_y_frac", "<f4"),
    ]
    table = np.zeros(len(uids), dtype=fields)
    table["uid"] = uids
    table["location/micrograph_path"] = b"J2/m.mrc"
    table["location/micrograph_shape"] = [400, 800]
    table["location/center_x_frac"], table["location/center_y_frac"] = 0.25, 0.125
    with path.open("wb") as handle:
        np.save(handle, table)


def test_passthrough_is_joined_by_uid(tmp_path: Path) -> None:
    table = cs_file(tmp_path / "a.cs")
    passthrough_file(tmp_path / "p.cs", table["uid"][[4, 1, 3]])
    rows = read_cryosparc(tmp_path / "a.cs", tmp_path / "p.cs").rows
    assert rows["image_name"].tolist() == ["000002@J1/a.mrc", "000004@J1/a.mrc", "000005@J1/a.mrc"]
    assert rows["micrograph_name"].tolist() == ["J2/m.mrc"] * 3
    assert (rows["coordinate_x"][0], rows["coordinate_y"][0]) == (200.0, 50.0)
    flipped = read_cryosparc(tmp_path / "a.cs", tmp_path / "p.cs", flip_y=True).rows
    assert (flipped["coordinate_x"][0], flipped["coordinate_y"][0]) == (200.0, 350.0)
    passthrough_file(tmp_path / "p.cs", np.arange(3, dtype=np.uint64))
    with pytest.raises(InputError, match="shares no particle"):
        read_cryosparc(tmp_path / "a.cs", tmp_path / "p.cs")


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    cs_file(tmp_path / "a.cs")
    whole = (tmp_path / "a.cs").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(0, 500, 3):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "b.cs").write_bytes(damaged)
        try:
            read_cryosparc(tmp_path / "b.cs")
        except InputError:
            refused += 1
    assert refused > 20


def test_what_is_no_cs_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_cs(tmp_path / "none.cs")
    (tmp_path / "a.cs").write_text("hello")
    with pytest.raises(InputError, match=r"is no \.cs file"):
        read_cs(tmp_path / "a.cs")
    with (tmp_path / "b.cs").open("wb") as handle:
        np.save(handle, np.zeros(3))
    with pytest.raises(InputError, match="no uid column"):
        read_cs(tmp_path / "b.cs")
    passthrough_file(tmp_path / "p.cs", np.arange(3, dtype=np.uint64))
    with pytest.raises(InputError, match="holds no particles"):
        read_cryosparc(tmp_path / "p.cs")


@pytest.mark.data
def test_ctf_agrees_with_the_star_file_of_the_same_particles(data_dir: Path) -> None:
    ours = read_cryosparc(data_dir / "particles/empiar_10076_7.cs")
    theirs = read_dataset(data_dir / "particles/empiar_10076_7.star")
    for name in ("defocus_u", "defocus_v", "defocus_angle"):
        np.testing.assert_allclose(ours.rows[name], theirs.rows[name], rtol=1e-5)
    for name in ("voltage", "cs", "amplitude_contrast", "pixel_size"):
        np.testing.assert_allclose(ours.optics[name], theirs.optics[name], rtol=1e-5)
    numbers = [[int(name.partition("@")[0]) for name in one.rows["image_name"]] for one in (ours, theirs)]
    assert numbers[0] == numbers[1]


@pytest.mark.data
def test_poses_of_t20s_are_proper(data_dir: Path) -> None:
    dataset = read_cryosparc(data_dir / "more/particles/t20s_cryosparc/cryosparc_P9_J209_000_particles.cs")
    assert len(dataset) == 11764
    assert dataset.optics["box"].tolist() == [256]
    assert set(dataset.rows["half_set"].tolist()) == {1, 2}
    tilt = dataset.rows["tilt"]
    assert tilt.min() >= 0
    assert tilt.max() <= 180
