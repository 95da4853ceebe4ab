from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from vitreous.core.errors import InputError
from vitreous.data.volume import Volume
from vitreous.io.movies import open_movie
from vitreous.io.mrc import (
    StackWriter,
    open_stack,
    read_array,
    read_header,
    read_image,
    read_map,
    split_name,
    write_image,
    write_map,
)

MODES = {"int8": 0, "int16": 1, "float32": 2, "complex64": 4, "uint16": 6, "float16": 12}


def sample(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    array = rng.normal(0, 30, (4, 6, 5))
    if dtype == "complex64":
        return (array + 1j * array[::-1]).astype(dtype)
    return np.abs(array).astype(dtype) if dtype == "uint16" else array.astype(dtype)


@pytest.mark.parametrize("dtype", MODES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_what_mrcfile_writes(tmp_path: Path, dtype: str, order: str) -> None:
    path, data = tmp_path / "a.mrcs", sample(dtype)
    with mrcfile.new(path) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = 1.25
        mrc.set_image_stack()
    if order == ">":
        with mrcfile.open(path, "r+") as mrc:
            swapped = mrc.header.byteswap().view(mrc.header.dtype.newbyteorder(">"))
            swapped.machst = [0x11, 0x11, 0, 0]
            raw = swapped.tobytes() + data.astype(data.dtype.newbyteorder(">")).tobytes()
        path.write_bytes(raw)
    array, header = read_array(path)
    assert header.mode == MODES[dtype]
    assert header.pixel_size == 1.25
    assert array.dtype == data.dtype
    np.testing.assert_array_equal(array, data)


@pytest.mark.parametrize("dtype", MODES)
def test_mrcfile_reads_what_we_write(tmp_path: Path, dtype: str) -> None:
    path, data = tmp_path / "a.mrcs", sample(dtype)
    write_image(path, data, 0.885, float16=dtype == "float16")
    if dtype not in ("complex64", "float16"):  # mrcfile overflows in its own statistics of these two
        assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        assert mrc.header.mode == MODES[dtype]
        assert mrc.is_image_stack()
        assert mrc.voxel_size.x == pytest.approx(0.885)
        np.testing.assert_array_equal(mrc.data, data)
        if dtype != "complex64":
            assert mrc.header.dmean == pytest.approx(data.astype(float).mean(), rel=1e-5)
            assert mrc.header.rms == pytest.approx(data.astype(float).std(), rel=1e-5)


def test_map_round_trip_is_a_volume_for_mrcfile(tmp_path: Path) -> None:
    volume = Volume(torch.randn(8, 8, 8), 1.06)
    write_map(tmp_path / "a.mrc", volume)
    back = read_map(tmp_path / "a.mrc")
    assert torch.equal(back.density, volume.density)
    assert back.voxel_size == 1.06
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        assert mrc.is_volume()


def test_axes_stored_in_another_order_are_put_right(tmp_path: Path) -> None:
    data = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    write_map(tmp_path / "a.mrc", Volume(torch.from_numpy(data), 1.0))
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    struct.pack_into("<3i", raw, 64, 3, 1, 2)  # columns are z, rows x, sections y
    (tmp_path / "a.mrc").write_bytes(raw)
    density = read_map(tmp_path / "a.mrc").density.numpy()
    z, y, x = 1, 2, 3
    assert density[z, y, x] == data[y, x, z]


def test_one_image_of_a_stack_by_name(tmp_path: Path) -> None:
    data = sample("float32")
    write_image(tmp_path / "a.mrcs", data, 2.0)
    image, pixel_size = read_image(f"000003@{tmp_path}/a.mrcs")
    np.testing.assert_array_equal(image, data[2])
    assert pixel_size == 2.0
    with pytest.raises(InputError, match="has 4 images; number 5"):
        read_image(f"000005@{tmp_path}/a.mrcs")


def test_names_are_counted_from_one() -> None:
    assert split_name("000001@a/b.mrcs") == (0, "a/b.mrcs")
    assert split_name("a.mrc") == (None, "a.mrc")
    with pytest.raises(InputError, match="no image name"):
        split_name("0@a.mrcs")


def test_stack_is_written_piece_by_piece_and_read_in_any_order(tmp_path: Path) -> None:
    data = sample("float32")
    with StackWriter(tmp_path / "a.mrcs", 1.5) as writer:
        writer.append(data[0])
        writer.append(data[1:])
        assert not (tmp_path / "a.mrcs").exists()
    with open_stack(tmp_path / "a.mrcs") as stack:
        assert (len(stack), stack.shape, stack.pixel_size) == (4, (4, 6, 5), 1.5)
        np.testing.assert_array_equal(stack.images([3, 0, 0]), data[[3, 0, 0]])
        np.testing.assert_array_equal(stack[1:3], data[1:3])


def test_float16_that_would_overflow_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.mrc", np.full((2, 2), 65504.0), 1.0, float16=True)
    with pytest.raises(InputError, match="beyond float16"):
        write_image(tmp_path / "b.mrc", np.full((2, 2), 65600.0), 1.0, float16=True)
    assert not (tmp_path / "b.mrc").exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), StackWriter(tmp_path / "a.mrcs", 1.0) as writer:
        writer.append(np.zeros((2, 2)))
        raise RuntimeError
    with pytest.raises(ValueError, match="without images"), StackWriter(tmp_path / "b.mrcs", 1.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_stack_beyond_four_gigabytes(tmp_path: Path) -> None:
    # A sparse file: only the last image is really on the disk.
    path = tmp_path / "big.mrcs"
    n, box = 1100, 1024
    write_image(path, np.zeros((1, box, box), np.float32), 1.0)
    header = bytearray(path.read_bytes()[:1024])
    struct.pack_into("<i", header, 8, n)
    last = np.random.default_rng(0).normal(size=(box, box)).astype(np.float32)
    with path.open("wb") as handle:
        handle.write(header)
        handle.seek(1024 + (n - 1) * box * box * 4)
        handle.write(last.tobytes())
    assert path.stat().st_size > 2**32
    with open_stack(path) as stack:
        images = stack.images([n - 1, 5])
    np.testing.assert_array_equal(images[0], last)
    assert not images[1].any()


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_movies(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    data = sample("int16")
    write_image(tmp_path / "a.mrcs", data, 1.3)
    path = tmp_path / f"a.mrcs.{ending}"
    path.write_bytes(pack((tmp_path / "a.mrcs").read_bytes()))
    movie = open_movie(path)
    assert (movie.n_frames, movie.shape, movie.pixel_size) == (4, (6, 5), 1.3)
    for frame in range(4):
        np.testing.assert_array_equal(movie.frames(frame, frame + 1)[0], data[frame])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be decompressed"):
        read_array(path)


def test_an_odd_header_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path / "a.mrc", sample("float32"), 1.0)
    with (tmp_path / "a.mrc").open("ab") as handle:
        handle.write(b"end")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            read_header(tmp_path / "a.mrc")
    assert caplog.text.count("3 bytes after the data are ignored") == 1


def test_gzip_and_extended_header(tmp_path: Path) -> None:
    data = sample("int16")
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(data)
        mrc.set_extended_header(np.zeros(96, dtype="V1"))
        mrc.header.exttyp = b"FEI1"
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress((tmp_path / "a.mrc").read_bytes()))
    for name in ("a.mrc", "a.mrc.gz"):
        array, header = read_array(tmp_path / name)
        np.testing.assert_array_equal(array, data)
        assert (header.offset, header.extended_type) == (1024 + 96, "FEI1")
    with open_stack(tmp_path / "a.mrc.gz") as stack:
        np.testing.assert_array_equal(stack[2], data[2])


def test_missing_map_stamp_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = sample("float32")
    write_image(tmp_path / "a.mrc", data, 1.0)
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    raw[208:216] = bytes(8)
    (tmp_path / "a.mrc").write_bytes(raw)
    with caplog.at_level(logging.WARNING):
        array, _ = read_array(tmp_path / "a.mrc")
    np.testing.assert_array_equal(array, data)
    assert "MotionCor2" in caplog.text


def test_serialem_unsigned_bytes(tmp_path: Path) -> None:
    data = np.array([[[0, 127, 128, 255]]], dtype=np.uint8)
    write_image(tmp_path / "a.mrc", data.view(np.int8), 1.0)
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    struct.pack_into("<2i", raw, 152, 1146047817, 0)
    (tmp_path / "a.mrc").write_bytes(raw)
    np.testing.assert_array_equal(read_image(tmp_path / "a.mrc")[0], data[0].astype(np.float32))
    struct.pack_into("<2i", raw, 152, 1146047817, 1)
    (tmp_path / "a.mrc").write_bytes(raw)
    np.testing.assert_array_equal(read_image(tmp_path / "a.mrc")[0], [[0, 127, -128, -1]])


def broken(data: bytes, kind: str) -> bytes:
    raw = bytearray(data)
    if kind == "truncated":
        return bytes(raw[:-1])
    if kind == "longer":
        return bytes(raw) + bytes(6 * 5 * 4)
    if kind == "header":
        return bytes(raw[:900])
    if kind == "packed":
        struct.pack_into("<i", raw, 12, 101)
    if kind == "mode":
        struct.pack_into("<i", raw, 12, 77)
    if kind == "negative":
        struct.pack_into("<i", raw, 0, -5)
    if kind == "text":
        return b"data_particles\nloop_\n" * 100
    if kind == "nan":
        struct.pack_into("<f", raw, 1024 + 40, float("nan"))
    return bytes(raw)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "is truncated"),
        ("longer", "is longer than it should be"),
        ("header", "a header alone has 1024"),
        ("packed", "4-bit"),
        ("mode", "is no MRC file"),
        ("negative", "is no MRC file"),
        ("text", "is no MRC file"),
        ("nan", "holds 1 values that are NaN"),
    ],
)
def test_broken_files(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "a.mrc"
    write_image(path, sample("float32"), 1.0)
    path.write_bytes(broken(path.read_bytes(), kind))
    with pytest.raises(InputError, match=message) as caught:
        read_array(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mrc", tmp_path, tmp_path / "none.mrc.gz"):
        with pytest.raises(InputError, match="cannot be read"):
            read_array(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_header(tmp_path / "none.mrc")
