from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from vitreous.core.errors import InputError
from vitreous.io.defects import read_defects
from vitreous.io.gain import check_gain_shape, read_gain
from vitreous.io.movies import open_movie
from vitreous.io.mrc import write_image
from vitreous.io.tiff import read_tiff, write_tiff

FRAMES = np.random.default_rng(1).poisson(2.0, (5, 12, 9))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "none"])
def test_tiff_movies_are_turned_upside_down(tmp_path: Path, dtype: str, compression: str) -> None:
    path = tmp_path / "a.tiff"
    data = FRAMES.astype(dtype)
    tifffile.imwrite(path, data, compression=None if compression == "none" else compression, photometric="minisblack")
    movie = open_movie(path)
    assert (movie.n_frames, movie.shape, movie.pixel_size, movie.n_dropped) == (5, (12, 9), None, 0)
    frames = movie.frames(1, 4)
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames, data[1:4, ::-1])


@pytest.mark.parametrize("compression", ["lzw", "deflate", "none"])
def test_written_tiff_reads_back_with_its_pixel_size(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    write_tiff(path, FRAMES.astype(np.uint8), 0.885, compression)  # type: ignore[arg-type]
    movie = open_movie(path)
    np.testing.assert_array_equal(movie.frames(0, 5), FRAMES)
    assert movie.pixel_size == pytest.approx(0.885, rel=1e-5)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 5
        np.testing.assert_array_equal(tiff.pages[2].asarray(), FRAMES[2, ::-1])


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcs"])
def test_mrc_movies(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, FRAMES.astype(np.int8), 1.1)
    movie = open_movie(tmp_path / name)
    assert (movie.n_frames, movie.shape, movie.pixel_size) == (5, (12, 9), 1.1)
    np.testing.assert_array_equal(movie.frames(3, 5), FRAMES[3:5])
    with pytest.raises(InputError, match="has 5 frames; 4 to 6"):
        movie.frames(3, 6)


def test_broken_tiffs(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    write_tiff(path, FRAMES.astype(np.uint8))
    whole = path.read_bytes()
    cases = {"short": whole[: len(whole) // 2], "empty": b"", "text": b"data_\n" * 99, "mrc": bytes(2048)}
    for name, raw in cases.items():
        (tmp_path / f"{name}.tiff").write_bytes(raw)
        with pytest.raises(InputError, match=f"{name}.tiff"):
            open_movie(tmp_path / f"{name}.tiff").frames(0, 5)
    damaged = bytearray(whole)
    damaged[40:400] = bytes(360)
    (tmp_path / "damaged.tiff").write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged\.tiff"):
        open_movie(tmp_path / "damaged.tiff").frames(0, 5)
    tifffile.imwrite(tmp_path / "rgb.tiff", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="not grey"):
        open_movie(tmp_path / "rgb.tiff")
    tifffile.imwrite(tmp_path / "nan.tiff", np.full((8, 8), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN"):
        open_movie(tmp_path / "nan.tiff").frames(0, 1)


def test_damaged_tiffs_are_refused_or_read(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tiff", FRAMES.astype(np.uint8), 1.0)
    whole = (tmp_path / "a.tiff").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "b.tiff").write_bytes(damaged)
        try:
            assert open_movie(tmp_path / "b.tiff").frames(0, 1).dtype == np.float32
        except InputError:
            refused += 1
    assert refused > 20


def test_a_movie_is_known_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no movie by its name"):
        open_movie(tmp_path / "a.png")
    with pytest.raises(InputError, match="cannot be read"):
        open_movie(tmp_path / "none.tiff")


def gain_file(tmp_path: Path, name: str = "gain.mrc") -> tuple[Path, np.ndarray]:
    gain = np.random.default_rng(2).uniform(0.8, 1.2, (4, 6)).astype(np.float32)
    path = tmp_path / name
    if name.endswith(".mrc"):
        write_image(path, gain, 1.0)
    else:
        tifffile.imwrite(path, gain)
    return path, gain


def test_gain_rotation_is_clockwise_and_flip_comes_after(tmp_path: Path) -> None:
    path, gain = gain_file(tmp_path)
    np.testing.assert_array_equal(read_gain(path), gain)
    # Clockwise with row 0 on top: the left column becomes the top row, bottom pixel first.
    np.testing.assert_array_equal(read_gain(path, rotation=1)[0], gain[::-1, 0])
    np.testing.assert_array_equal(read_gain(path, rotation=2), gain[::-1, ::-1])
    np.testing.assert_array_equal(read_gain(path, rotation=3), np.rot90(gain))
    np.testing.assert_array_equal(read_gain(path, flip=1), gain[::-1])
    np.testing.assert_array_equal(read_gain(path, flip=2), gain[:, ::-1])
    np.testing.assert_array_equal(read_gain(path, rotation=1, flip=1), np.rot90(gain, -1)[::-1])


def test_tiff_gains_turn_with_the_movies_and_gain_files_do_not(tmp_path: Path) -> None:
    path, gain = gain_file(tmp_path, "gain.tif")
    np.testing.assert_array_equal(read_gain(path), gain[::-1])
    path, gain = gain_file(tmp_path, "k.gain")
    np.testing.assert_array_equal(read_gain(path), gain)
    np.testing.assert_array_equal(read_gain(path, eer_shape=(4, 6)), gain)


def test_gains_of_eer_movies_divide_and_are_fitted_to_the_grid(tmp_path: Path) -> None:
    path = tmp_path / "gain.mrc"
    gain = np.array([[2.0, 4.0], [0.0, 1.0]], dtype=np.float32)
    write_image(path, gain, 1.0)
    np.testing.assert_array_equal(read_gain(path, eer_shape=(2, 2)), [[0.5, 0.25], [0.0, 1.0]])
    np.testing.assert_array_equal(read_gain(path, eer_shape=(4, 4))[:2, :2], 0.5)
    np.testing.assert_array_equal(read_gain(path, eer_shape=(1, 1)), [[0.0]])
    with pytest.raises(InputError, match="has 2 x 2 pixels, the movies 7 x 7"):
        read_gain(path, eer_shape=(7, 7))


def test_wrong_gains(tmp_path: Path) -> None:
    path, gain = gain_file(tmp_path)
    with pytest.raises(InputError, match="gain rotation"):
        read_gain(path, rotation=4)
    with pytest.raises(InputError, match="gain flip"):
        read_gain(path, flip=3)
    with pytest.raises(InputError, match="no gain reference by its name"):
        read_gain(tmp_path / "gain.dm4")
    with pytest.raises(InputError, match=r"6 x 4 pixels, m\.tiff has 4 x 6"):
        check_gain_shape(path, gain, "m.tiff", (6, 4))
    write_image(path, -gain, 1.0)
    with pytest.raises(InputError, match="is no gain reference"):
        read_gain(path)
    write_image(path, np.ones((2, 3, 3)), 1.0)
    with pytest.raises(InputError, match="holds 2 images"):
        read_gain(path)


def test_defects_from_rectangles_and_maps(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("# x y w h\n1 2 3 1\n0, 0, 1, 1\n\n")
    bad = read_defects(tmp_path / "d.txt", (4, 6))
    expected = np.zeros((4, 6), bool)
    expected[2, 1:4] = expected[0, 0] = True
    np.testing.assert_array_equal(bad, expected)
    write_image(tmp_path / "d.mrc", expected.astype(np.float32), 1.0)
    np.testing.assert_array_equal(read_defects(tmp_path / "d.mrc", (4, 6)), expected)
    tifffile.imwrite(tmp_path / "d.tif", expected.astype(np.uint8))
    np.testing.assert_array_equal(read_defects(tmp_path / "d.tif", (4, 6)), expected[::-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 2 3\n", "line 1 is no defect"), ("0 0 9 1\n", "lies outside"), ("0 0 6 4", "every pixel"), ("é", "not text")],
)
def test_wrong_defects(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_defects(tmp_path / "d.txt", (4, 6))


def test_defect_map_of_another_size(tmp_path: Path) -> None:
    write_image(tmp_path / "d.mrc", np.zeros((3, 3), np.int8), 1.0)
    with pytest.raises(InputError, match="of shape"):
        read_defects(tmp_path / "d.mrc", (4, 6))


def test_first_image_of_a_tiff_keeps_its_number_type(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[0].astype(np.uint16))
    image, pixel_size = read_tiff(tmp_path / "a.tif")
    assert (image.dtype, pixel_size) == (np.uint16, None)
