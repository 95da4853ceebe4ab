from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.half_maps import other_half, read_half_maps, read_matching_mask
from vitreous.io.mrc import read_map, write_image, write_map
from vitreous.io.stacks import ParticleStack

BOX = 6


def particles(names: list[str], pixel_sizes: tuple[float, ...] = (1.5,)) -> Dataset:
    groups = np.arange(len(names)) % len(pixel_sizes) + 1
    optics = Table({"optics_group": np.arange(len(pixel_sizes)) + 1, "pixel_size": list(pixel_sizes)})
    return Dataset("particles", optics, Table({"image_name": np.array(names, object), "optics_group": groups}))


def stacks(folder: Path, n_files: int = 3, n: int = 5) -> np.ndarray:
    data = np.random.default_rng(0).normal(size=(n_files, n, BOX, BOX)).astype(np.float32)
    for index, images in enumerate(data):
        write_image(folder / f"s{index}.mrcs", images, 1.5, float16=False)
    return data


def test_images_come_in_the_order_asked_for(tmp_path: Path) -> None:
    data = stacks(tmp_path)
    order = np.random.default_rng(1).permutation(15)
    names = [f"{k % 5 + 1:06d}@s{k // 5}.mrcs" for k in order]
    source = ParticleStack(particles(names), tmp_path)
    assert (len(source), source.box, source.pixel_size) == (15, BOX, 1.5)
    expected = data.reshape(15, BOX, BOX)[order]
    np.testing.assert_array_equal(source[np.arange(15)].numpy(), expected)
    wanted = np.array([7, 7, 0, 14, 3])
    images = source[wanted]
    assert images.dtype == torch.float32
    np.testing.assert_array_equal(images.numpy(), expected[wanted])
    assert source[np.zeros(0, int)].shape == (0, BOX, BOX)


def test_more_stacks_than_open_files(tmp_path: Path) -> None:
    data = stacks(tmp_path, n_files=70, n=1)
    source = ParticleStack(particles([f"1@s{k}.mrcs" for k in range(70)]), tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(source[np.arange(70)].numpy(), data[:, 0])


def test_a_source_travels_to_other_processes_and_threads(tmp_path: Path) -> None:
    data = stacks(tmp_path, n_files=80, n=2)
    source = ParticleStack(particles([f"{k % 2 + 1}@s{k // 2}.mrcs" for k in range(160)]), tmp_path)
    expected = data.reshape(160, BOX, BOX)
    _ = source[np.arange(160)]
    packed = pickle.dumps(source)
    assert len(packed) < 40_000
    np.testing.assert_array_equal(pickle.loads(packed)[np.arange(160)].numpy(), expected)
    orders = [np.random.default_rng(seed).permutation(160) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for order, images in zip(orders, pool.map(source.__getitem__, orders), strict=True):
            np.testing.assert_array_equal(images.numpy(), expected[order])


def test_sizes_that_rounding_tells_apart_are_one(tmp_path: Path) -> None:
    stacks(tmp_path)
    source = ParticleStack(particles(["1@s0.mrcs", "2@s0.mrcs"], (1.06, 1.0600001)), tmp_path)
    assert source.pixel_size == pytest.approx(1.06)


def test_what_is_wrong_with_stacks(tmp_path: Path) -> None:
    stacks(tmp_path)
    write_image(tmp_path / "big.mrcs", np.zeros((2, BOX + 2, BOX + 2)), 1.5)
    with pytest.raises(InputError, match=r"none\.mrcs: cannot be read"):
        ParticleStack(particles(["1@none.mrcs"]), tmp_path)
    with pytest.raises(InputError, match="no image name"):
        ParticleStack(particles(["s0.mrcs"]), tmp_path)
    with pytest.raises(InputError, match="are none"):
        ParticleStack(particles([]), tmp_path)
    with pytest.raises(InputError, match="2 pixel sizes"):
        ParticleStack(particles(["1@s0.mrcs", "2@s0.mrcs"], (1.5, 2.0)), tmp_path)
    with pytest.raises(InputError, match="images of 8 x 8 pixels, the first stack of 6 x 6"):
        ParticleStack(particles(["1@s0.mrcs", "1@big.mrcs"]), tmp_path).check()
    with pytest.raises(InputError, match="has 5 images; number 6"):
        ParticleStack(particles(["1@s0.mrcs", "6@s1.mrcs"]), tmp_path).check()
    with pytest.raises(InputError, match="has 5 images; number 6"):
        _ = ParticleStack(particles(["1@s0.mrcs", "6@s1.mrcs"]), tmp_path)[np.array([1])]
    rows = Table({"micrograph_name": np.array(["a"], object), "optics_group": [1]})
    with pytest.raises(InputError, match="no _rlnImageName"):
        ParticleStack(Dataset("particles", particles([]).optics, rows), tmp_path)


def test_a_box_that_is_not_what_the_star_file_says(tmp_path: Path) -> None:
    stacks(tmp_path)
    told = particles(["1@s0.mrcs"])
    for box, wrong in ((BOX, False), (BOX * 2, True)):
        dataset = Dataset("particles", told.optics.with_columns(box=box), told.rows)
        if wrong:
            with pytest.raises(InputError, match="images of 6 pixels, the STAR file says 12"):
                ParticleStack(dataset, tmp_path)
        else:
            assert ParticleStack(dataset, tmp_path).box == BOX


def test_partner_of_a_half_map() -> None:
    assert other_half("Refine3D/half1/run_half1_class001_unfil.mrc").as_posix() == (
        "Refine3D/half1/run_half2_class001_unfil.mrc"
    )
    assert other_half("run_half2_class001.mrc").name == "run_half1_class001.mrc"
    with pytest.raises(InputError, match="not named as a half-map"):
        other_half("run_class001.mrc")


def test_half_maps_come_as_one_and_two(tmp_path: Path) -> None:
    volumes = [Volume(torch.randn(4, 4, 4), 1.5) for _ in range(2)]
    for name, volume in zip(("a_half1.mrc", "a_half2.mrc"), volumes, strict=True):
        write_map(tmp_path / name, volume)
    for given in ("a_half1.mrc", "a_half2.mrc"):
        first, second = read_half_maps(tmp_path / given)
        assert torch.equal(first.density, volumes[0].density)
        assert torch.equal(second.density, volumes[1].density)
    write_map(tmp_path / "a_half2.mrc", Volume(torch.randn(6, 6, 6), 1.5))
    with pytest.raises(InputError, match="has box"):
        read_half_maps(tmp_path / "a_half1.mrc")
    write_map(tmp_path / "a_half2.mrc", Volume(torch.randn(4, 4, 4), 1.6))
    with pytest.raises(InputError, match="voxel size"):
        read_half_maps(tmp_path / "a_half1.mrc")
    (tmp_path / "a_half2.mrc").unlink()
    with pytest.raises(InputError, match=r"no partner a_half2\.mrc"):
        read_half_maps(tmp_path / "a_half1.mrc")


def test_masks_must_match_and_be_masks(tmp_path: Path) -> None:
    volume = Volume(torch.zeros(4, 4, 4), 1.5)
    path = tmp_path / "mask.mrc"
    write_map(path, Volume(torch.rand(4, 4, 4), 1.5))
    assert read_matching_mask(path, volume).box == 4
    for density, voxel_size, message in (
        (torch.rand(6, 6, 6), 1.5, "has box 6"),
        (torch.rand(4, 4, 4), 3.0, "voxel size"),
        (torch.full((4, 4, 4), 7.0), 1.5, "is no mask"),
        (torch.zeros(4, 4, 4), 1.5, "empty"),
    ):
        write_map(path, Volume(density, voxel_size))
        with pytest.raises(InputError, match=message):
            read_matching_mask(path, volume)


def test_a_map_that_is_none(tmp_path: Path) -> None:
    write_image(tmp_path / "a.mrc", np.zeros((4, 5, 5)), 1.0)
    with pytest.raises(InputError, match="5 x 5 x 4 voxels, not a cube"):
        read_map(tmp_path / "a.mrc")
    write_map(tmp_path / "a.mrc", Volume(torch.zeros(4, 4, 4), 0.0))
    with pytest.raises(InputError, match="no voxel size"):
        read_map(tmp_path / "a.mrc")
