"""MotionCor2's options as they are typed by RELION and by facilities' scripts, and its logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitreous.core.errors import InputError
from vitreous.data.motion import Motion, local_shift
from vitreous.io.motioncor2_logs import shift_lines, write_logs
from vitreous.io.motioncor2_options import parse_options, read_integration

# Typed by relion_run_motioncorr 3.1.3.
RELION = (
    "-InMrc mv.mrcs -OutMrc mo/mv.mrc -LogFile mo/mv -Bft 150 -PixSize 1.2 -Patch 5 5 -Group 3 -Gain mo/gain.mrc "
    "-Throw 1 -FmRef 0 -Trunc 2 -FtBin 2 -Kv 300 -FmDose 2 -InitDose 1 -DefectFile def.txt -Gpu 0"
)
# From a public script of a facility.
SCRIPT = (
    "-InMrc Micrographs/ -InSuffix 0_movie.mrcs -OutMrc out/ -Patch 3 3 -Gpu 0 1 -Serial 1 -FmRef 1 -RotGain 0 "
    "-FlipGain 0 -Iter 7 -Tol 0.5 -Bft 150 -StackZ 0 -FtBin 1.0 -InitDose 0 -FmDose 1.0 -PixSize 0.97 -kV 300 "
    "-Throw 0 -Trunc 0 -Group 0"
)


def test_what_relion_types() -> None:
    options = parse_options(RELION.split())
    assert (options.input, options.kind, options.output) == ("mv.mrcs", "mrc", "mo/mv.mrc")
    assert (options.patches, options.group, options.throw, options.trunc) == ((5, 5), 3, 1, 2)
    assert (options.gain, options.defects, options.log_prefix) == ("mo/gain.mrc", "def.txt", "mo/mv")
    assert (options.binning, options.dose, options.pre_exposure, options.voltage) == (2.0, 2.0, 1.0, 300.0)
    assert options.reference == 1
    assert options.gpus == (0,)
    assert options.weights_dose
    assert not options.serial


def test_what_scripts_type() -> None:
    options = parse_options(SCRIPT.split())
    assert options.serial
    assert options.suffix == "0_movie.mrcs"
    assert options.gpus == (0, 1)
    assert options.group == 1
    assert options.iterations == 7
    assert options.reference == 1
    assert options.tolerance == 0.01


def test_defaults_are_motioncor2s() -> None:
    options = parse_options(["-InTiff", "a.tif", "-OutMrc", "a.mrc"])
    assert options.reference is None  # the middle frame
    assert options.patches == (1, 1)
    assert not options.weights_dose


def test_options_without_effect_are_named_and_others_refused() -> None:
    files = ["-InMrc", "a.mrc", "-OutMrc", "b.mrc"]
    options = parse_options([*files, "-GpuMemUsage", "0.5", "-Mag", "1", "1", "0", "-OutStack", "0"])
    assert options.ignored == ("-gpumemusage",)
    with pytest.raises(InputError, match="-mag: is asked to be"):
        parse_options([*files, "-Mag", "1.01", "1", "0"])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("-OutMrc b.mrc", "is missing"),
        ("-InMrc a.mrc", "-OutMrc: is missing"),
        ("-InMrc a.mrc -InTiff a.tif -OutMrc b.mrc", "given together"),
        ("-InMrc a.mrc -OutMrc b.mrc -Nonsense 1", "is no option"),
        ("-InMrc a.mrc -OutMrc b.mrc -FtBin two", "is no number"),
        ("-InMrc a.mrc -OutMrc b.mrc -FtBin 0.5", "at least 1"),
        ("-InMrc a.mrc -OutMrc b.mrc -Throw 1.5", "no whole number"),
        ("-InMrc a.mrc -OutMrc b.mrc -Throw", "has 0 values"),
        ("a.mrc -OutMrc b.mrc", "before any option"),
    ],
)
def test_wrong_options(words: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        parse_options(words.split())


def test_integration_file(tmp_path: Path) -> None:
    file = tmp_path / "fm.txt"
    file.write_text("# frames, sum, dose\n1200 40 0.025\n")
    assert read_integration(file) == (40, 0.025)
    file.write_text("600 40 0.025\n600 20 0.025\n")
    with pytest.raises(InputError, match="different ways"):
        read_integration(file)
    file.write_text("600 forty\n")
    with pytest.raises(InputError, match="no frame integration file"):
        read_integration(file)


def motion(with_patches: bool) -> Motion:
    rng = np.random.default_rng(2)
    shifts = np.array([[0.0, 0.0], [-1.25, 2.5], [-3.0, 4.125]])
    if not with_patches:
        return Motion((100, 120), shifts)
    centres = np.array([[30.0, 25.0], [90.0, 75.0]])
    return Motion((100, 120), shifts, 0.1 * rng.standard_normal((2, 18)), centres, rng.standard_normal((2, 3, 2)))


def test_shifts_on_standard_output() -> None:
    lines = shift_lines(motion(False))
    assert lines[0] == "Full-frame alignment shift"
    read = [[float(word) for word in line.partition("shift:")[2].split()] for line in lines[1:4]]
    assert np.allclose(read, motion(False).global_shifts, atol=1e-3)
    assert lines[4] == ""


def test_log_of_full_frames(tmp_path: Path) -> None:
    (path,) = write_logs(str(tmp_path / "a0"), motion(False))
    assert path.name == "a0-Full.log"
    assert path.read_text().startswith("# full frame alignment\n")
    assert np.allclose(np.loadtxt(path)[:, 1:], motion(False).global_shifts, atol=1e-3)


def test_logs_of_patches(tmp_path: Path) -> None:
    one = motion(True)
    paths = write_logs(str(tmp_path / "a0"), one)
    assert [path.name for path in paths] == ["a0-Patch-Full.log", "a0-Patch-Patch.log", "a0-Patch-Frame.log"]
    # Scripts skip three lines.
    assert np.allclose(np.loadtxt(paths[0], skiprows=3, comments=None), np.c_[[1, 2, 3], one.global_shifts], atol=1e-3)
    table = np.loadtxt(paths[1])
    assert table[:, 0].tolist() == [1, 2, 3, 1, 2, 3]
    assert np.allclose(table[:, 1:3], np.repeat(one.patch_centres, 3, axis=0))
    assert np.allclose(table[:, 3:5], one.patch_shifts.reshape(-1, 2), atol=6e-3)
    fitted = local_shift(one, np.tile(np.arange(3), 2), table[:, 1], table[:, 2])
    assert np.allclose(table[:, 5:], fitted, atol=6e-3)
    by_frame = np.loadtxt(paths[2])
    assert by_frame[:, 0].tolist() == [1, 1, 2, 2, 3, 3]
    assert np.allclose(by_frame[0], table[0])
