"""EER files made by an encoder written from the format's description (Guo et al. 2020 IUCrJ 7, 860)."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from vitreous.core.errors import InputError
from vitreous.io.eer import EerMovie, frames_per_fraction
from vitreous.io.eer_events import add_events
from vitreous.io.movies import open_movie
from vitreous.io.tiff import write_tiff

SIDE = 64
Event = tuple[int, int, int, int]  # y, x, quarter of the pixel in y and in x (0-3)


def encode(events: list[Event], skip_bits: int) -> bytes:
    """Run lengths between events and, after each, two bits of position either way (stored XOR 2)."""
    longest = (1 << skip_bits) - 1
    bits: list[tuple[int, int]] = []

    def skip(pixels: int) -> None:
        while pixels >= longest:
            bits.append((longest, skip_bits))
            pixels -= longest
        bits.append((pixels, skip_bits))

    position = 0
    for y, x, sub_y, sub_x in sorted(events):
        skip(y * SIDE + x - position)
        bits.append((((sub_y ^ 2) << 2) | (sub_x ^ 2), 4))
        position = y * SIDE + x + 1
    skip(SIDE * SIDE - position)
    value = shift = 0
    for code, length in bits:
        value |= code << shift
        shift += length
    return value.to_bytes((shift + 7) // 8 + 4, "little")


def write_eer(path: Path, frames: list[list[Event]], compression: int = 65001, metadata: str = "") -> None:
    """A little-endian BigTIFF with one page of events a raw frame, as the cameras write."""
    skip_bits = {65000: 8, 65001: 7, 65002: 9}[compression]
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    previous = 8  # where the offset of the next directory is to be written
    for frame in frames:
        data = encode(frame, skip_bits)
        data_offset = len(out)
        out += data
        text = metadata.encode()
        text_offset = len(out)
        out += text + bytes(len(out) % 2 + len(text) % 2)
        tags = [
            (256, 4, 1, SIDE),
            (257, 4, 1, SIDE),
            (258, 3, 1, 1),
            (259, 3, 1, compression),
            (262, 3, 1, 1),
            (273, 4, 1, data_offset),
            (278, 4, 1, SIDE),
            (279, 4, 1, len(data)),
        ]
        if text:
            tags.append((65001, 7, len(text), text_offset))
        if compression == 65002:
            tags += [(65007, 3, 1, skip_bits), (65008, 3, 1, 2), (65009, 3, 1, 2)]
        out += bytes(len(out) % 2)
        out[previous : previous + 8] = struct.pack("<Q", len(out))
        out += struct.pack("<Q", len(tags))
        for tag in tags:
            out += struct.pack("<HHQQ", *tag)
        previous = len(out)
        out += bytes(8)
    path.write_bytes(out)


def random_frames(n: int, events: int = 40) -> list[list[Event]]:
    rng = np.random.default_rng(7)
    frames = []
    for _ in range(n):
        pixels = rng.choice(SIDE * SIDE, events, replace=False)
        subs = rng.integers(0, 4, (events, 2))
        frames.append([(int(p) // SIDE, int(p) % SIDE, int(a), int(b)) for p, (a, b) in zip(pixels, subs, strict=True)])
    return frames


def rendered(frames: list[list[Event]], upsampling: int) -> np.ndarray:
    image = np.zeros((SIDE * upsampling, SIDE * upsampling))
    for frame in frames:
        for y, x, sub_y, sub_x in frame:
            image[y * upsampling + sub_y * upsampling // 4, x * upsampling + sub_x * upsampling // 4] += 1
    return image


@pytest.mark.parametrize("upsampling", [1, 2])
@pytest.mark.parametrize("compression", [65000, 65001, 65002])
def test_every_event_is_counted_where_it_fell(tmp_path: Path, compression: int, upsampling: int) -> None:
    raw = random_frames(7)
    write_eer(tmp_path / "a.eer", raw, compression)
    movie = EerMovie(tmp_path / "a.eer", grouping=3, upsampling=upsampling)
    assert (movie.n_raw_frames, movie.n_frames, movie.n_dropped) == (7, 2, 1)
    assert movie.shape == (SIDE * upsampling, SIDE * upsampling)
    frames = movie.frames(0, 2)
    np.testing.assert_array_equal(frames[0], rendered(raw[:3], upsampling))
    np.testing.assert_array_equal(frames[1], rendered(raw[3:6], upsampling))
    np.testing.assert_array_equal(movie.frames(1, 2)[0], frames[1])


def test_decoder_agrees_with_imagecodecs() -> None:
    for frame in random_frames(3):
        data = encode(frame, 8)
        for superres in (0, 1):
            side = SIDE << superres
            counts = np.zeros((side, side), np.uint16)
            assert add_events(np.frombuffer(data, np.uint8), 8, (2, 2), 1 << superres, counts) == len(frame)
            oracle = imagecodecs.eer_decode(data, (side, side), 8, 2, 2, superres=superres)
            np.testing.assert_array_equal(counts, oracle)


def test_groups_beyond_a_byte_do_not_overflow(tmp_path: Path) -> None:
    write_eer(tmp_path / "a.eer", [[(3, 4, 0, 0)]] * 300)
    frames = EerMovie(tmp_path / "a.eer", grouping=300).frames(0, 1)
    assert frames[0, 3, 4] == 300
    assert frames.sum() == 300


def test_pixel_size_of_the_camera(tmp_path: Path) -> None:
    xml = (
        '<metadata><item name="sensorPixelSize.width" unit="m">9.5e-11</item>'
        '<item name="sensorPixelSize.height" unit="m">9.5e-11</item></metadata>'
    )
    write_eer(tmp_path / "a.eer", random_frames(2), metadata=xml)
    assert open_movie(tmp_path / "a.eer", eer_grouping=1).pixel_size == pytest.approx(0.95)
    assert open_movie(tmp_path / "a.eer", eer_grouping=1, eer_upsampling=2).pixel_size == pytest.approx(0.475)
    write_eer(tmp_path / "b.eer", random_frames(2))
    assert open_movie(tmp_path / "b.eer", eer_grouping=1).pixel_size is None


def test_grouping_by_dose() -> None:
    assert frames_per_fraction(0.025, 1.0) == 40
    assert frames_per_fraction(0.5, 0.1) == 1
    with pytest.raises(InputError, match="positive"):
        frames_per_fraction(0.0, 1.0)


def test_wrong_files_and_options(tmp_path: Path) -> None:
    path = tmp_path / "a.eer"
    write_eer(path, random_frames(5))
    with pytest.raises(InputError, match="fewer than one group of 6"):
        EerMovie(path, grouping=6)
    with pytest.raises(InputError, match="upsampling"):
        EerMovie(path, grouping=1, upsampling=3)
    with pytest.raises(InputError, match="grouping"):
        EerMovie(path, grouping=0)
    with pytest.raises(InputError, match="has 5 frames"):
        EerMovie(path, grouping=1).frames(4, 6)
    whole = path.read_bytes()
    for length in (0, 6, 300, len(whole) - 60):
        (tmp_path / "cut.eer").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.eer"):
            EerMovie(tmp_path / "cut.eer", grouping=5).frames(0, 1)
    write_eer(tmp_path / "bits.eer", random_frames(2), 65002)
    damaged = (tmp_path / "bits.eer").read_bytes()
    tag = struct.pack("<HHQQ", 65007, 3, 1, 9)
    assert damaged.count(tag) == 2
    (tmp_path / "bits.eer").write_bytes(damaged.replace(tag, struct.pack("<HHQQ", 65007, 3, 1, 0)))
    with pytest.raises(InputError, match="odd page"):
        EerMovie(tmp_path / "bits.eer", grouping=1)
    write_tiff(tmp_path / "b.tif", np.zeros((2, 8, 8), np.uint8))
    (tmp_path / "b.tif").rename(tmp_path / "b.eer")
    with pytest.raises(InputError, match="no electron events"):
        EerMovie(tmp_path / "b.eer")
