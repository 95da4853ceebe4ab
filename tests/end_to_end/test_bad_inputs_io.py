"""What users really give: each kind of wrong file is one line with its path, exit code 2, never a traceback."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitreous.core.errors import InputError
from vitreous.io.cryosparc import read_cs
from vitreous.io.defects import read_defects
from vitreous.io.gain import read_gain
from vitreous.io.half_maps import read_half_maps, read_matching_mask
from vitreous.io.models import read_atoms
from vitreous.io.movies import open_movie
from vitreous.io.mrc import read_array, read_map, write_image
from vitreous.io.relion import read_dataset, read_table
from vitreous.io.stacks import ParticleStack
from vitreous.io.star import read_star
from vitreous.io.tiff import write_tiff

OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n1 1.0\n\n"
Make = Callable[[Path], None]


def text(content: str) -> Make:
    return lambda path: path.write_text(content) and None


def raw(content: bytes) -> Make:
    return lambda path: path.write_bytes(content) and None


def image(array: np.ndarray, patch: Callable[[bytearray], bytes | bytearray] = bytearray) -> Make:
    def make(path: Path) -> None:
        write_image(path.with_suffix(".tmp"), array, 1.0)
        path.write_bytes(patch(bytearray(path.with_suffix(".tmp").read_bytes())))

    return make


def mode(number: int) -> Callable[[bytearray], bytearray]:
    def patch(data: bytearray) -> bytearray:
        struct.pack_into("<i", data, 12, number)
        return data

    return patch


def eer_without_events(path: Path) -> None:
    write_tiff(path.with_suffix(".tif"), np.zeros((2, 8, 8), np.uint8))
    path.with_suffix(".tif").rename(path)


def cut_tiff(path: Path) -> None:
    write_tiff(path.with_suffix(".tif"), np.random.default_rng(0).poisson(3, (4, 32, 32)).astype(np.uint8))
    path.write_bytes(path.with_suffix(".tif").read_bytes()[:-700])


def frames(path: Path) -> object:
    return open_movie(path).frames(0, 1)


def particles(path: Path) -> object:
    dataset = read_dataset(path)
    ParticleStack(dataset, path.parent).check()
    return None


def half_map(path: Path) -> None:
    write_image(path, np.zeros((4, 4, 4), np.float32), 1.0)


ONES = np.ones((2, 4, 4), np.float32)
NAN = np.full((4, 4), np.nan, np.float32)
CASES: dict[str, tuple[str, Make | None, Callable[[Path], object]]] = {
    "STAR that is not there": ("none.star", None, read_star),
    "STAR that is empty": ("a.star", text(""), read_star),
    "STAR that is another text": ("a.star", text("dear all,\n"), read_star),
    "STAR that is an image": ("a.star", image(ONES), read_star),
    "STAR with a short row": ("a.star", text("data_\nloop_\n_rlnA\n_rlnB\n1 2\n3\n"), read_star),
    "STAR with a long row": ("a.star", text("data_\nloop_\n_rlnA\n_rlnB\n1 2 3\n"), read_star),
    "STAR with a column twice": ("a.star", text("data_\nloop_\n_rlnA\n_rlnA\n1 2\n"), read_star),
    "STAR with a block twice": ("a.star", text("data_a\n_rlnA 1\n\ndata_a\n_rlnA 1\n"), read_star),
    "STAR with words for numbers": ("a.star", text("data_\nloop_\n_rlnDefocusU\nlarge\n"), read_table),
    "STAR without particles": ("a.star", text("data_\nloop_\n_rlnCoordinateX\n1\n"), read_dataset),
    "STAR with an unknown optics group": (
        "a.star",
        text(OPTICS + "data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n1@a.mrcs 2\n"),
        read_dataset,
    ),
    "particles whose stack is missing": (
        "a.star",
        text(OPTICS + "data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n1@none.mrcs 1\n"),
        particles,
    ),
    "particles without a slice number": (
        "a.star",
        text(OPTICS + "data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\na.mrcs 1\n"),
        particles,
    ),
    "MRC that is not there": ("none.mrc", None, read_array),
    "MRC that is a folder": ("folder.mrc", lambda path: path.mkdir(), read_array),
    "MRC that is empty": ("a.mrc", raw(b""), read_array),
    "MRC that is a text": ("a.mrc", text("data_\n" * 1000), read_array),
    "MRC that was cut short": ("a.mrc", image(ONES, lambda data: data[:-5]), read_array),
    "MRC longer than its header says": ("a.mrc", image(ONES, lambda data: data + bytes(64)), read_array),
    "MRC with NaN": ("a.mrc", image(NAN), read_array),
    "MRC of 4-bit counts": ("a.mrc", image(ONES, mode(101)), read_array),
    "MRC of an unknown mode": ("a.mrc", image(ONES, mode(55)), read_array),
    "MRC.gz that is no gzip": ("a.mrc.gz", raw(b"MRC" * 999), read_array),
    "MRC.gz that was cut short": ("a.mrc.gz", raw(gzip.compress(bytes(9999))[:-9]), read_array),
    "map that is no cube": ("a.mrc", image(ONES), read_map),
    "half-map without its partner": ("a_half1.mrc", half_map, read_half_maps),
    "half-map by another name": ("a.mrc", half_map, read_half_maps),
    "movie of an unknown kind": ("a.avi", raw(b"avi"), open_movie),
    "TIFF that is none": ("a.tiff", text("hello"), open_movie),
    "TIFF that was cut short": ("a.tiff", cut_tiff, frames),
    "EER without events": ("a.eer", eer_without_events, open_movie),
    "gain that is a stack": ("a.mrc", image(ONES), read_gain),
    "gain of zeros": ("a.mrc", image(np.zeros((4, 4), np.float32)), read_gain),
    "defects outside the frame": ("a.txt", text("9 9 9 9\n"), lambda path: read_defects(path, (8, 8))),
    "defects that are words": ("a.txt", text("none today\n"), lambda path: read_defects(path, (8, 8))),
    "model that is none": ("a.pdb", text("no atoms here\n"), read_atoms),
    "model that is no mmCIF": ("a.cif", text("no atoms here\n"), read_atoms),
    "cs file that is none": ("a.cs", text("cryosparc\n"), read_cs),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_with_the_path(tmp_path: Path, case: str) -> None:
    name, make, read = CASES[case]
    path = tmp_path / name
    if make is not None:
        make(path)
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message or "none.mrcs" in message or "a.mrcs" in message
    assert caught.value.remedy.endswith(".")


def test_there_are_more_than_twenty_kinds() -> None:
    assert len(CASES) > 20


def test_mask_of_another_box(tmp_path: Path) -> None:
    half_map(tmp_path / "a.mrc")
    write_image(tmp_path / "mask.mrc", np.ones((6, 6, 6), np.float32), 1.0)
    with pytest.raises(InputError, match=r"mask\.mrc: has box 6"):
        read_matching_mask(tmp_path / "mask.mrc", read_map(tmp_path / "a.mrc"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "--movies", "none/*.tiff"], "matches no file"),
        (["import", "--movies", "bad.tiff", "--pixel-size", "1"], "bad.tiff"),
        (["import", "--particles", "bad.star"], "bad.star"),
    ],
)
def test_the_program_says_one_line_and_exits_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "bad.tiff").write_text("x")
    (tmp_path / "bad.star").write_text("x")
    command = [sys.executable, "-m", "vitreous", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in done.stderr
