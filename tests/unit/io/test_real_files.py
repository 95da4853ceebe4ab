"""Every real file there is: read, with the reference readers as oracles, or refused in one line."""

from __future__ import annotations

import logging
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from vitreous.core.errors import InputError
from vitreous.io.cryosparc import read_cs
from vitreous.io.half_maps import read_half_maps, read_matching_mask
from vitreous.io.models import read_atoms
from vitreous.io.mrc import open_stack, read_array
from vitreous.io.relion import read_dataset, read_tables, write_dataset
from vitreous.io.stacks import ParticleStack
from vitreous.io.star import read_star, write_star

pytestmark = pytest.mark.data

IMAGES = (".mrc", ".mrcs", ".map", ".mrc.gz", ".ctf")
MODELS = (".pdb", ".pdb.gz", ".cif.gz")


def files(data_dir: Path, endings: tuple[str, ...]) -> list[Path]:
    found = sorted(path for path in data_dir.rglob("*") if path.is_file() and path.name.endswith(endings))
    assert found
    return found


@pytest.mark.filterwarnings("ignore::RuntimeWarning:mrcfile")
def test_every_image(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    for path in files(data_dir, IMAGES):
        array, header = read_array(path)
        with mrcfile.open(path, permissive=True) as oracle:
            np.testing.assert_array_equal(array, oracle.data.reshape(array.shape), err_msg=str(path))
            assert header.pixel_size == pytest.approx(float(oracle.voxel_size.x), rel=1e-5), path
        if array.dtype.kind != "c":
            with open_stack(path) as stack:
                np.testing.assert_array_equal(stack[len(stack) - 1], array[-1].astype(np.float32))


def test_every_star_file_round_trips(data_dir: Path, tmp_path: Path) -> None:
    for path in files(data_dir, (".star",)):
        before = read_star(path)
        write_star(tmp_path / "a.star", before)
        after = read_star(tmp_path / "a.star")
        assert list(after) == list(before), path
        for name, block in before.items():
            again = after[name]
            assert (again.is_loop, again.comments) == (block.is_loop, block.comments), path
            assert list(again.columns) == list(block.columns), path
            for label, values in block.columns.items():
                assert again[label].dtype == values.dtype, (path, label)
                np.testing.assert_array_equal(again[label], values, err_msg=f"{path} {label}")


def test_every_star_file_agrees_with_starfile(data_dir: Path) -> None:
    for path in files(data_dir, (".star",)):
        ours = read_star(path)
        theirs = starfile.read(path, always_dict=True)
        for name, block in ours.items():
            oracle = theirs[name]
            if not block.is_loop:
                assert {str(key) for key in oracle} == set(block.columns), path
                continue
            assert list(oracle.columns) == list(block.columns), path
            for label, values in block.columns.items():
                if values.dtype.kind in "if":
                    np.testing.assert_allclose(values, oracle[label].to_numpy(float), rtol=1e-12, err_msg=str(path))
                else:
                    # starfile makes numbers, True and NaN of names: compare what is text in both.
                    texts = oracle[label].astype(str).tolist()
                    same = sum(a == b for a, b in zip(values.tolist(), texts, strict=True))
                    assert same == len(values) or "None" in values.tolist(), (path, label)


def test_every_dataset_or_one_line(data_dir: Path, tmp_path: Path) -> None:
    read = 0
    for path in files(data_dir, (".star",)):
        assert read_tables(path)
        try:
            dataset = read_dataset(path)
        except InputError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            continue
        read += 1
        write_dataset(tmp_path / "a.star", dataset)
        again = read_dataset(tmp_path / "a.star")
        assert again.kind == dataset.kind
        for name, values in dataset.rows.items():
            np.testing.assert_array_equal(again.rows[name], values, err_msg=f"{path} {name}")
        dataset.optics_of_rows("optics_group_name")
    assert read > 20


@pytest.mark.parametrize(
    ("star", "root", "n"),
    [
        ("betagal_empiar10204/Extract/job009/particles.star", "betagal_empiar10204", 2374),
        ("particles/empiar_10076_7.star", "particles", 7),
        ("more/references/relion_project_70S/rln_proj_64_shifted.star", "more/references/relion_project_70S", 4),
    ],
)
def test_particles_with_their_images(data_dir: Path, star: str, root: str, n: int) -> None:
    source = ParticleStack(read_dataset(data_dir / star), data_dir / root)
    assert len(source) == n
    images = source[np.arange(n)[:: max(1, n // 20)]]
    assert images.isfinite().all()
    assert images.std() > 0


def test_every_model(data_dir: Path) -> None:
    for path in files(data_dir, MODELS):
        atoms = read_atoms(path)
        assert len(atoms) > 1000, path
        assert np.isfinite(atoms.positions).all()


def test_every_cs_file(data_dir: Path) -> None:
    for path in files(data_dir, (".cs",)):
        assert len(read_cs(path)), path


def test_half_maps_and_mask(data_dir: Path) -> None:
    folder = data_dir / "more/empiar10204/derived_halfmaps"
    first, second = read_half_maps(folder / "bgal_half1_class001_unfil.mrc")
    mask = read_matching_mask(folder / "bgal_mask.mrc", first)
    assert (first.box, second.voxel_size) == (64, 3.54)
    assert 0 < float(mask.density.mean()) < 0.5


def test_old_files_are_brought_up_to_date(data_dir: Path) -> None:
    old = read_dataset(data_dir / "more/empiar10017_relion14/Class2D/manual_it025_data.star")
    assert old.optics["pixel_size"][0] == pytest.approx(3.54, rel=1e-5)
    raw = read_star(data_dir / "more/empiar10017_relion14/Class2D/manual_it025_data.star")["images"]
    np.testing.assert_allclose(old.rows["origin_x"], raw["rlnOriginX"] * 3.54, rtol=1e-5)
    three = read_dataset(data_dir / "particles/aspire_sample_particles_relion30.star")
    assert three.optics["pixel_size"][0] == pytest.approx(1.338)
    assert "rlnMagnification" not in three.rows


@pytest.mark.parametrize("name", ["README.md", "more/metadata/FoilHole_EPU.xml", "models/6z6u_apoferritin.pdb.gz"])
def test_what_is_no_star_file_is_refused(data_dir: Path, name: str) -> None:
    with pytest.raises(InputError, match=Path(name).name.replace(".", r"\.")):
        read_star(data_dir / name)
    with pytest.raises(InputError, match=Path(name).name.replace(".", r"\.")):
        read_array(data_dir / name)
