"""Our files held against RELION's own programs."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.data.dataset import Dataset
from vitreous.data.table import Table
from vitreous.data.volume import Volume
from vitreous.io.gain import read_gain
from vitreous.io.movies import open_movie
from vitreous.io.mrc import read_array, read_image, read_map, write_image, write_map
from vitreous.io.relion import read_dataset, write_dataset
from vitreous.io.star import read_star
from vitreous.io.tiff import write_tiff
from vitreous.job import Context
from vitreous.jobs.import_ import Import

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(
        shutil.which("relion_image_handler") is None, reason="RELION is not installed (apt-get install relion)"
    ),
]
RNG = np.random.default_rng(11)


def run(folder: Path, *command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_relion_reads_our_maps_and_images(tmp_path: Path) -> None:
    volume = Volume(torch.from_numpy(RNG.normal(size=(24, 24, 24)).astype(np.float32)), 1.37)
    write_map(tmp_path / "map.mrc", volume)
    run(tmp_path, "relion_image_handler", "--i", "map.mrc", "--o", "twice.mrc", "--multiply_constant", 2)
    theirs = read_map(tmp_path / "twice.mrc")
    torch.testing.assert_close(theirs.density, 2 * volume.density, rtol=1e-5, atol=1e-6)
    assert theirs.voxel_size == pytest.approx(1.37, rel=1e-4)
    image = RNG.normal(size=(20, 30)).astype(np.float32)
    write_image(tmp_path / "image.mrc", image, 2.5)
    run(tmp_path, "relion_image_handler", "--i", "image.mrc", "--o", "sum.mrc", "--add_constant", 1)
    np.testing.assert_allclose(read_image(tmp_path / "sum.mrc")[0], image + 1, atol=1e-5)
    told = run(tmp_path, "relion_image_handler", "--i", "map.mrc", "--stats")
    assert "(x,y,z,n)= 24 x 24 x 24 x 1" in " ".join(told.split())


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32])
def test_relion_reads_our_stacks(tmp_path: Path, dtype: type) -> None:
    stack = RNG.integers(0, 100, (3, 16, 16)).astype(dtype)
    write_image(tmp_path / "stack.mrcs", stack, 1.5)
    run(tmp_path, "relion_image_handler", "--i", "stack.mrcs", "--o", "out.mrcs", "--multiply_constant", 3)
    np.testing.assert_allclose(read_array(tmp_path / "out.mrcs")[0], 3.0 * stack, atol=1e-3)


def particles(tmp_path: Path) -> Dataset:
    write_image(tmp_path / "stack.mrcs", RNG.normal(size=(4, 16, 16)), 1.5)
    optics = Table(
        {
            "optics_group_name": ["opticsGroup1"],
            "optics_group": [1],
            "voltage": [300.0],
            "cs": [2.7],
            "amplitude_contrast": [0.1],
            "pixel_size": [1.5],
            "box": [16],
            "image_dimensionality": [2],
        }
    )
    rows = Table(
        {
            "image_name": [f"{i + 1:06d}@stack.mrcs" for i in range(4)],
            "micrograph_name": [f"m{i // 2}.mrc" for i in range(4)],
            "optics_group": [1, 1, 1, 1],
            "defocus_u": [1e4, 1 / 3, 12345.678901234, 2e4],
            "defocus_v": [1e4, 1e-7, 1e4, 2e4],
            "defocus_angle": [0.0, -45.5, 10.25, 90.0],
            "rot": RNG.uniform(-180, 180, 4),
            "tilt": RNG.uniform(0, 180, 4),
            "psi": RNG.uniform(-180, 180, 4),
            "origin_x": [1.5, 0.0, -3.0, 0.1],
            "origin_y": [0.0, 0.0, 2.0, 0.2],
        }
    )
    return Dataset("particles", optics, rows)


def test_relion_reads_our_particles(tmp_path: Path) -> None:
    ours = particles(tmp_path)
    write_dataset(tmp_path / "particles.star", ours)
    run(tmp_path, "relion_star_handler", "--i", "particles.star", "--o", "again.star", "--combine")
    again = read_dataset(tmp_path / "again.star")
    assert again.rows["image_name"].tolist() == ours.rows["image_name"].tolist()
    for name in ("defocus_u", "defocus_v", "defocus_angle", "rot", "tilt", "psi", "origin_x", "origin_y"):
        np.testing.assert_allclose(again.rows[name], ours.rows[name], rtol=1e-5, atol=1e-5)
    for name in ours.optics:
        assert again.optics[name].tolist() == ours.optics[name].tolist()


def test_relions_table_printer_reads_our_star(tmp_path: Path) -> None:
    ours = particles(tmp_path)
    write_dataset(tmp_path / "particles.star", ours)
    told = run(tmp_path, "relion_star_printtable", "particles.star", "data_particles", "rlnImageName", "rlnAngleRot")
    printed = [line.split() for line in told.splitlines() if line.strip()]
    assert [row[0] for row in printed] == ours.rows["image_name"].tolist()
    np.testing.assert_allclose([float(row[1]) for row in printed], ours.rows["rot"], rtol=1e-12)


def test_import_writes_what_relion_import_writes(tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path / f"Movies/m{i}.mrcs", RNG.normal(size=(3, 16, 16)), 1.2)
        write_image(tmp_path / f"Micrographs/m{i}.mrc", RNG.normal(size=(16, 16)), 1.2)
    (tmp_path / "mtf.star").write_text("data_\n")
    (tmp_path / "theirs").mkdir()
    common = ["--odir", "theirs/", "--angpix", 1.2, "--kV", 200, "--Cs", 1.4, "--Q0", 0.07, "--beamtilt_x", 0.3]
    common += ["--optics_group_mtf", "mtf.star", "--optics_group_name", "og"]
    options = {"pixel_size": 1.2, "voltage": 200, "cs": 1.4, "amplitude_contrast": 0.07, "beam_tilt_x": 0.3}
    options |= {"mtf": "mtf.star", "optics_group_name": "og"}
    (tmp_path / "ours").mkdir()
    context = Context(tmp_path, tmp_path / "ours", torch.device("cpu"), 1, 1, 10**9)
    for kind, pattern in (("movies", "Movies/*.mrcs"), ("micrographs", "Micrographs/*.mrc")):
        run(tmp_path, "relion_import", "--i", pattern, "--ofile", f"{kind}.star", f"--do_{kind}", *common)
        Import().run(Import.Parameters(**{kind: pattern}, **options), context)
        theirs, ours = (read_star(tmp_path / who / f"{kind}.star") for who in ("theirs", "ours"))
        assert list(ours) == list(theirs)
        for name in theirs:
            assert list(ours[name].columns) == list(theirs[name].columns)
            for label, values in theirs[name].columns.items():
                np.testing.assert_array_equal(ours[name][label], values, err_msg=label)


def movies_star(pixel_size: float, movie: str) -> str:
    return f"""
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 {pixel_size} 300 2.7 0.1


# version 30001

data_movies

loop_
_rlnMicrographMovieName #1
_rlnOpticsGroup #2
{movie} 1

"""


@pytest.mark.parametrize(("rotation", "flip"), [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (1, 1), (3, 2)])
@pytest.mark.parametrize("ending", ["tiff", "mrcs"])
def test_gain_is_turned_as_relion_turns_it(tmp_path: Path, ending: str, rotation: int, flip: int) -> None:
    """RELION's motion correction of a still movie shows how it turns TIFFs, MRCs and gains."""
    side = 256
    still = np.kron(RNG.integers(5, 40, (16, 16)), np.ones((side // 16, side // 16))).astype(np.uint8)
    movie = tmp_path / f"m.{ending}"
    if ending == "tiff":
        write_tiff(movie, np.stack([still] * 3), 1.0)
    else:
        write_image(movie, np.stack([still] * 3).astype(np.int8), 1.0)
    gain = (1 + np.kron(RNG.uniform(0, 1, (8, 8)), np.ones((side // 8, side // 8)))).astype(np.float32)
    write_image(tmp_path / "gain.mrc", gain, 1.0)
    (tmp_path / "movies.star").write_text(movies_star(1.0, movie.name))
    command = ["relion_run_motioncorr", "--i", "movies.star", "--o", "out", "--use_own", "--gainref", "gain.mrc"]
    command += ["--gain_rot", rotation, "--gain_flip", flip, "--skip_defect", "--patch_x", 1, "--patch_y", 1]
    run(tmp_path, *command, "--max_iter", 0, "--j", 1)
    theirs = read_image(tmp_path / "out/m.mrc")[0]
    still = open_movie(movie).frames(0, 3).sum(0)

    def correlation(turns: int) -> float:
        ours = still * read_gain(tmp_path / "gain.mrc", turns % 4, flip)
        return float(np.corrcoef(theirs.ravel(), ours.ravel())[0, 1])

    assert correlation(rotation) > 0.99
    assert max(correlation(rotation + other) for other in (1, 2, 3)) < 0.97


def eer_page(events: np.ndarray, side: int, skip_bits: int = 7) -> bytes:
    """Run lengths and positions of sorted events (pixel, y quarter, x quarter); see tests/unit/io/test_eer.py."""
    longest = (1 << skip_bits) - 1
    value = shift = 0
    position = 0
    for pixel, sub_y, sub_x in [*events.tolist(), (side * side, 0, 0)]:
        skip = pixel - position
        while skip >= longest:
            value |= longest << shift
            shift += skip_bits
            skip -= longest
        value |= skip << shift
        shift += skip_bits
        value |= (((sub_y ^ 2) << 2) | (sub_x ^ 2)) << shift
        shift += 4
        position = pixel + 1
    return value.to_bytes((shift + 7) // 8 + 8, "little")


def write_eer(path: Path, pages: list[bytes], side: int) -> None:
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    previous = 8
    for data in pages:
        offset = len(out)
        out += data + bytes(len(data) % 2)
        tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 1), (259, 3, 1, 65001), (262, 3, 1, 1)]
        tags += [(273, 4, 1, offset), (278, 4, 1, side), (279, 4, 1, len(data))]
        out[previous : previous + 8] = struct.pack("<Q", len(out))
        out += struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
        previous = len(out)
        out += bytes(8)
    path.write_bytes(out)


@pytest.mark.parametrize("upsampling", [1, 2])
def test_eer_is_rendered_as_relion_renders_it(tmp_path: Path, upsampling: int) -> None:
    side, n_events = 4096, 300  # RELION 3.1 knows this sensor alone
    pages = []
    for _ in range(5):
        pixels = np.sort(RNG.choice(side * side, n_events, replace=False))
        pages.append(eer_page(np.column_stack([pixels, RNG.integers(0, 4, (n_events, 2))]), side))
    write_eer(tmp_path / "a.eer", pages, side)
    command = ["relion_convert_to_tiff", "--i", "a.eer", "--o", "out/", "--eer_grouping", 2]
    run(tmp_path, *command, "--eer_upsampling", upsampling, "--compression", "lzw")
    theirs = open_movie(tmp_path / "out/a.tif")
    ours = open_movie(tmp_path / "a.eer", eer_grouping=2, eer_upsampling=upsampling)
    assert (ours.n_frames, ours.shape, ours.n_dropped) == (theirs.n_frames, theirs.shape, 1)
    for frame in range(2):
        mine = ours.frames(frame, frame + 1)
        assert mine.sum() == 2 * n_events
        np.testing.assert_array_equal(mine, theirs.frames(frame, frame + 1))
