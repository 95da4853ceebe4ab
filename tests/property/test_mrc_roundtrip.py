"""Whatever an image holds, an MRC file gives it back, and mrcfile reads the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitreous.core.errors import InputError
from vitreous.io.mrc import StackWriter, open_stack, read_array, write_image

DTYPES = st.sampled_from([np.int8, np.int16, np.uint16, np.float32, np.complex64])
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=7)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dtype=DTYPES, shape=SHAPES, pixel_size=st.floats(0.1, 50.0))
def test_images_round_trip(data: st.DataObject, dtype: type, shape: tuple[int, int, int], pixel_size: float) -> None:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype in (np.float32, np.complex64) else {}
    array = data.draw(hnp.arrays(dtype, shape, elements=finite or None))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mrcs"
        write_image(path, array, pixel_size)
        back, header = read_array(path)
        with mrcfile.open(path, permissive=True) as oracle:
            np.testing.assert_array_equal(np.asarray(oracle.data).reshape(shape), array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert header.pixel_size == pytest.approx(pixel_size, rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    float16=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_stacks_written_in_pieces(pieces: list[int], float16: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(sum(pieces), 4, 5)).astype(np.float16 if float16 else np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mrcs"
        with StackWriter(path, 1.0, float16=float16) as writer:
            for part in np.split(images, np.cumsum(pieces)[:-1]):
                writer.append(part)
        with open_stack(path) as stack:
            order = rng.permutation(len(stack))
            np.testing.assert_array_equal(stack.images(order), images[order].astype(np.float32))


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 1024 + 4 * 2 * 3 * 5 - 1))
def test_a_file_cut_anywhere_is_refused(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mrcs"
        write_image(path, np.ones((2, 3, 5), np.float32), 1.0)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(InputError):
            read_array(path)


@settings(max_examples=200, deadline=None)
@given(header=st.binary(min_size=224, max_size=224), rest=st.binary(max_size=64))
def test_noise_is_refused_or_read_but_never_crashes(header: bytes, rest: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mrc"
        path.write_bytes(header + bytes(800) + rest)
        try:
            array, found = read_array(path)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert array.shape == found.shape
